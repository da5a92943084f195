"""Report data and host data: compared as a whole, and never with too little."""

from __future__ import annotations

import pytest

from kbs.attestation.model import Binding
from kbs.attestation.sev.report import Report, parse
from kbs.attestation.verifiers.snp.binding import check_binding
from kbs.client.attesters.snp import SoftwareSnp
from kbs.errors import BindingMismatch, InitDataMismatch

SNP = SoftwareSnp()
NONCE = bytes(range(1, 49))
DIGEST = bytes(range(101, 149))


def report(report_data: bytes = NONCE, init_data: bytes | None = None) -> Report:
    return parse(SNP.report(report_data, init_data))


def test_an_empty_digest_binds_nothing() -> None:
    """It fits the report data of every guest that asks for none."""
    with pytest.raises(BindingMismatch):
        check_binding(report(b""), Binding(b""))
    check_binding(report(b""), Binding(None))


@pytest.mark.parametrize("digest", [NONCE[:-1], NONCE + b"\1", NONCE.ljust(65, b"\0"), bytes(64)])
def test_another_report_data_is_refused(digest: bytes) -> None:
    check_binding(report(), Binding(NONCE))
    with pytest.raises(BindingMismatch):
        check_binding(report(), Binding(digest))


@pytest.mark.parametrize("size", [32, 48])
def test_host_data_is_the_first_half_of_a_digest(size: int) -> None:
    check_binding(report(init_data=DIGEST[:32]), Binding(NONCE, DIGEST[:size]))
    for place in (0, 31):
        other = bytearray(DIGEST[:size])
        other[place] ^= 1
        with pytest.raises(InitDataMismatch, match="carry"):
            check_binding(report(init_data=DIGEST[:32]), Binding(NONCE, bytes(other)))
    with pytest.raises(InitDataMismatch, match="carry"):
        check_binding(report(), Binding(NONCE, DIGEST[:size]))


@pytest.mark.parametrize("size", [0, 1, 20, 31])
def test_a_short_digest_is_refused_even_where_it_fits(size: int) -> None:
    with pytest.raises(InitDataMismatch, match="too short"):
        check_binding(report(init_data=DIGEST[:size].ljust(32, b"\0")), Binding(NONCE, DIGEST[:size]))
