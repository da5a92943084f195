"""A report and its certificate: what must agree, whatever a certificate might say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kbs.attestation.endorsements.amd import TcbVersion, VekKind
from kbs.attestation.endorsements.amd_roots import roots_from_anchors
from kbs.attestation.sev.chain import ChainVerifier
from kbs.attestation.sev.checks import check_identity
from kbs.attestation.sev.report import parse
from kbs.client.attesters.snp import SoftwareSnp
from kbs.errors import TcbMismatch

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
SNP = SoftwareSnp()
(ROOTS,) = roots_from_anchors(SNP.anchors).values()
VCEK = ChainVerifier().verify(SNP.certificate(), VekKind.VCEK, ROOTS, AT)
REPORT = parse(SNP.report(b"n"))


def test_a_good_pair() -> None:
    check_identity(REPORT, VCEK, ())


@pytest.mark.parametrize("hwid", [bytes(64), b"", None])
def test_no_chip_is_never_the_chip_of_a_certificate(hwid: bytes | None) -> None:
    """A masked report and a certificate of no chip would agree about nothing."""
    nameless = replace(REPORT, chip_id=bytes(64))
    with pytest.raises(TcbMismatch, match="chip"):
        check_identity(nameless, replace(VCEK, hwid=hwid), ())


@pytest.mark.parametrize("place", range(64))
def test_every_octet_of_the_chip_counts(place: int) -> None:
    other = bytearray(REPORT.chip_id)
    other[place] ^= 1
    with pytest.raises(TcbMismatch, match="chip"):
        check_identity(replace(REPORT, chip_id=bytes(other)), VCEK, ())


TCB = REPORT.reported_tcb


@pytest.mark.parametrize(
    "other",
    [
        replace(TCB, bootloader=TCB.bootloader + 1),
        replace(TCB, tee=TCB.tee + 1),
        replace(TCB, snp=TCB.snp - 1),
        replace(TCB, microcode=TCB.microcode - 1),
        replace(TCB, fmc=0),
    ],
)
def test_every_component_of_the_reported_tcb_counts(other: TcbVersion) -> None:
    with pytest.raises(TcbMismatch, match="TCB"):
        check_identity(replace(REPORT, reported_tcb=other), VCEK, ())
