"""The report's bytes: what parses, and that nothing else does."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion
from kbs.attestation.sev.report import (
    REPORT_SIZE,
    FirmwareVersion,
    SigningKey,
    encode_tcb,
    parse,
    product_of,
)
from kbs.client.attesters.snp import SoftwareSnp
from kbs.errors import EvidenceMalformed, EvidenceRejected, EvidenceVersionUnsupported

TCB = TcbVersion(3, 1, 8, 200)


@cache
def attester(product: str = "Milan") -> SoftwareSnp:
    return SoftwareSnp(product=product)


def test_every_field_is_read_from_its_place() -> None:
    report = parse(
        attester("Turin").report(
            b"\1" * 48,
            b"\2" * 32,
            guest_svn=7,
            policy=0x30000 | 0x1F37,
            family_id=b"\3" * 16,
            image_id=b"\4" * 16,
            vmpl=2,
            plat_info=0xA5,
            key_info=0b00111,
            measurement=b"\5" * 48,
            id_key_digest=b"\6" * 48,
            author_key_digest=b"\7" * 48,
            report_id=b"\x08" * 32,
            report_id_ma=b"\x09" * 32,
            chip_id=b"\x0a" * 64,
            current_tcb=TcbVersion(1, 2, 3, 4, 5),
            reported_tcb=TcbVersion(6, 7, 8, 9, 10),
            committed_tcb=TcbVersion(11, 12, 13, 14, 15),
            launch_tcb=TcbVersion(16, 17, 18, 19, 20),
            current=(1, 2, 3),
            committed=(4, 5, 6),
            launch_mit_vector=1 << 63,
            current_mit_vector=3,
        )
    )
    assert (report.version, report.product, report.guest_svn) == (5, AmdProduct.TURIN, 7)
    assert (report.policy, report.vmpl, report.platform_info) == (0x31F37, 2, 0xA5)
    assert (report.family_id, report.image_id) == (b"\3" * 16, b"\4" * 16)
    assert report.key_info.author_key_enabled
    assert report.key_info.mask_chip_key
    assert report.key_info.signing_key is SigningKey.VLEK
    assert report.report_data == b"\1" * 48 + bytes(16)
    assert (report.host_data, report.measurement) == (b"\2" * 32, b"\5" * 48)
    assert (report.id_key_digest, report.author_key_digest) == (b"\6" * 48, b"\7" * 48)
    assert (report.report_id, report.report_id_ma, report.chip_id) == (b"\x08" * 32, b"\x09" * 32, b"\x0a" * 64)
    assert report.current_tcb == TcbVersion(1, 2, 3, 4, 5)
    assert report.reported_tcb == TcbVersion(6, 7, 8, 9, 10)
    assert report.committed_tcb == TcbVersion(11, 12, 13, 14, 15)
    assert report.launch_tcb == TcbVersion(16, 17, 18, 19, 20)
    assert report.current_firmware == FirmwareVersion(1, 2, 3)
    assert str(report.committed_firmware) == "4.5.6"
    assert (report.launch_mitigations, report.current_mitigations) == (1 << 63, 3)


@pytest.mark.parametrize("version", [0, 1, 6, 0xFFFFFFFF])
def test_unknown_versions_are_refused(version: int) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        parse(attester().report(b"\1" * 48, version=version))


@pytest.mark.parametrize("size", [0, 1, 0x2A0, REPORT_SIZE - 1, REPORT_SIZE + 1, 4096])
def test_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(EvidenceMalformed):
        parse(attester().report(b"\1" * 48).ljust(size, b"\0")[:size])


@pytest.mark.parametrize("offset", [0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x200, 0x208, 0x29F, 0x330, 0x49F])
def test_reserved_bytes_must_be_zero(offset: int) -> None:
    raw = bytearray(attester().report(b"\1" * 48))
    raw[offset] = 1
    with pytest.raises(EvidenceMalformed):
        parse(bytes(raw))


@pytest.mark.parametrize(("product", "spare"), [("Milan", 2), ("Milan", 5), ("Turin", 4), ("Turin", 6)])
@pytest.mark.parametrize("field", [0x38, 0x180, 0x1E0, 0x1F0])
def test_spare_tcb_components_must_be_zero(product: str, spare: int, field: int) -> None:
    with pytest.raises(EvidenceMalformed):
        parse(attester(product).report(b"\1" * 48, reserved={field + spare: 1}))


@pytest.mark.parametrize("word", [2 << 2, 3 << 2, 6 << 2, 1 << 5, 1 << 31])
def test_reserved_key_info_is_refused(word: int) -> None:
    with pytest.raises(EvidenceMalformed):
        parse(attester().report(b"\1" * 48, key_info=word))


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x00, "Milan"), (0x19, 0x0F, "Milan"), (0x19, 0x10, "Genoa"), (0x19, 0x1F, "Genoa"),
        (0x19, 0xA0, "Genoa"), (0x19, 0xAF, "Genoa"), (0x1A, 0x00, "Turin"), (0x1A, 0x11, "Turin"),
        (0x1A, 0x50, "Venice"), (0x1A, 0x57, "Venice"), (0x1A, 0x90, "Venice"), (0x1A, 0xAF, "Venice"),
        (0x1A, 0xC0, "Venice"), (0x1A, 0xC7, "Venice"),
    ],
)  # fmt: skip
def test_product_by_cpuid(family: int, model: int, product: str) -> None:
    assert product_of(family, model) == product


@pytest.mark.parametrize(
    ("family", "model"),
    [
        (0x17, 0x31),
        (0x19, 0x20),
        (0x19, 0x9F),
        (0x19, 0xB0),
        (0x1A, 0x12),
        (0x1A, 0x58),
        (0x1A, 0xC8),
        (0, 0),
        (255, 255),
    ],
)
def test_unknown_processors_are_refused(family: int, model: int) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        product_of(family, model)


def test_venice_is_refused_until_roots_are_pinned() -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        parse(attester().report(b"\1" * 48, cpuid_fam_id=0x1A, cpuid_mod_id=0x50))


def test_version_2_must_not_name_a_processor() -> None:
    raw = attester().report(b"\1" * 48, version=2, reserved={0x188: 0x19})
    with pytest.raises(EvidenceMalformed):
        parse(raw, AmdProduct.MILAN)


def test_layouts_differ_by_product() -> None:
    assert encode_tcb(TCB, AmdProduct.MILAN) == bytes((3, 1, 0, 0, 0, 0, 8, 200))
    assert encode_tcb(TcbVersion(3, 1, 8, 200, 9), AmdProduct.TURIN) == bytes((9, 3, 1, 8, 0, 0, 0, 200))


@given(st.binary(max_size=REPORT_SIZE + 8) | st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_any_bytes_raise_nothing_else(raw: bytes) -> None:
    for v2_product in (None, AmdProduct.GENOA):
        with pytest.raises(EvidenceRejected):
            parse(raw, v2_product)
