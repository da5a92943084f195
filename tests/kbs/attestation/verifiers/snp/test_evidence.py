"""The JSON form of SNP evidence: the same bytes, or none."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.sev.report import REPORT_SIZE, parse
from kbs.attestation.verifiers.snp.evidence import read, report_bytes
from kbs.client.attesters.snp import SoftwareSnp, report_json
from kbs.errors import EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported


@cache
def attester(product: str = "Milan") -> SoftwareSnp:
    return SoftwareSnp(product=product)


@pytest.mark.parametrize("version", [0, 1, 6, 0xFFFFFFFF])
def test_unknown_versions_are_refused(version: int) -> None:
    raw = attester().report(b"\1" * 48, version=version)
    with pytest.raises(EvidenceVersionUnsupported):
        report_bytes(report_json(raw, "Milan"), None)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_the_json_form_rebuilds_the_same_bytes(product: str, version: int) -> None:
    raw = attester(product).report(b"\1" * 48, version=version)
    v2_product = AmdProduct(product) if version == 2 else None
    assert report_bytes(report_json(raw, product), v2_product) == raw
    assert parse(raw, v2_product).product == product


def test_trailing_bytes_only_by_option() -> None:
    page = attester().report(b"\1" * 48).ljust(4096, b"\xff")
    assert read(page, None, allow_trailing_bytes=True).report.version == 3
    with pytest.raises(EvidenceMalformed):
        read(page, None)
    with pytest.raises(EvidenceMalformed):
        read(page[:100], None, allow_trailing_bytes=True)


@given(st.data())
def test_any_change_parses_or_is_refused(data: st.DataObject) -> None:
    raw = bytearray(attester("Genoa").report(b"\1" * 48))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, REPORT_SIZE - 1))] = data.draw(st.integers(0, 255))
    try:
        report = parse(bytes(raw))
    except EvidenceRejected:
        return
    again = parse(report_bytes(report_json(bytes(raw), str(report.product)), None))
    assert again == report
