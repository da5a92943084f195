"""Revocation lists: whose, how old, and whom they name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.attestation.endorsements.amd import VekKind
from kbs.attestation.endorsements.amd_roots import AmdRoots, roots_from_anchors
from kbs.attestation.sev.chain import ChainVerifier, EndorsedKey
from kbs.attestation.sev.revocation import RevocationChecker
from kbs.attestation.x509 import load_crl
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import ChainInvalid, EndorsementExpired, EndorsementRevoked, EvidenceRejected

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CRL = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@cache
def attester(kind: str = "vcek") -> SoftwareSnp:
    return SoftwareSnp(kind=kind)


@cache
def chain(kind: str = "vcek") -> tuple[AmdRoots, EndorsedKey]:
    (roots,) = roots_from_anchors(attester().anchors).values()
    return roots, ChainVerifier().verify(attester(kind).certificate(), VekKind(kind), roots, AT)


def check(crl: bytes, kind: str = "vcek", at: datetime = AT) -> None:
    RevocationChecker().check(crl, *chain(kind), at)


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
@pytest.mark.parametrize("revoked", [[], [0x20000, 77]])
def test_a_list_that_names_others_passes(kind: str, revoked: list[int]) -> None:
    check(attester().crl(revoked), kind)


@pytest.mark.parametrize(
    ("kind", "serial"),
    [("vcek", 0x10000), ("vcek", 0x10001), ("vlek", 0x10101), ("vlek", 0x10000), ("vcek", 0), ("vlek", 0)],
)
def test_a_listed_serial_refuses_the_chain(kind: str, serial: int) -> None:
    """Serial 0 is that of every VEK: listed, it refuses them all rather than none."""
    with pytest.raises(EndorsementRevoked):
        check(attester().crl([5, serial]), kind)


def test_one_intermediate_does_not_fall_with_the_other() -> None:
    check(attester().crl([0x10101]), "vcek")
    check(attester().crl([0x10001]), "vlek")


@pytest.mark.parametrize(
    "validity",
    [(AT - 2 * SECOND, AT - SECOND), (AT + SECOND, AT + 2 * SECOND)],
    ids=["stale", "not yet valid"],
)
def test_a_list_outside_its_time_is_refused(validity: tuple[datetime, datetime]) -> None:
    with pytest.raises(EndorsementExpired):
        check(attester().crl(validity=validity))


def test_freshness_is_checked_on_a_remembered_list() -> None:
    checker, crl = RevocationChecker(), attester().crl(validity=(AT, AT + SECOND))
    checker.check(crl, *chain(), AT)
    with pytest.raises(EndorsementExpired):
        checker.check(crl, *chain(), AT + 2 * SECOND)


WRONG: dict[str, Callable[[], bytes]] = {
    "an unknown signer": lambda: attester().crl(signer=TestRoot().rsa("unknown")),
    "the ASK as signer": lambda: attester().crl(signer=TestRoot().rsa("snp-ask")),
    "another issuer's name": lambda: attester().crl(issuer=attester().ask.subject),
    "another product's root": lambda: SoftwareSnp(product="Genoa").crl(),
    "a delta list": lambda: attester().crl(extra=[(x509.DeltaCRLIndicator(1), True)]),
    "an unknown critical extension": lambda: attester().crl(extra=[(CRL, True)]),
    "nothing": lambda: b"",
    "a certificate": lambda: attester().certificate(),
    "cut": lambda: attester().crl()[:-1],
    "with a trailing byte": lambda: attester().crl() + b"\0",
    "a page of HTML": lambda: b"<html>busy</html>",
    "PEM with junk behind it": lambda: load_crl(attester().crl()).public_bytes(Encoding.PEM) + b"junk",
    "PEM of two lists": lambda: load_crl(attester().crl()).public_bytes(Encoding.PEM) * 2,
    "broken PEM": lambda: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_wrong_lists_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ChainInvalid):
        check(make())


def test_memory_is_bounded() -> None:
    checker = RevocationChecker()
    for number in range(1, 21):
        checker.check(attester().crl(number=number), *chain(), AT)
    assert len(checker._known) == 16


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_a_list_is_refused(data: st.DataObject) -> None:
    der = bytearray(GOOD)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EvidenceRejected):
        check(bytes(der))


GOOD = attester().crl([77])
