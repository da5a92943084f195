"""Certificates in both forms and the chain: what is accepted, what is refused and why, and what is remembered."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.hygon import chain
from kbs.attestation.hygon.certificates import CA_SIZE, CSV_SIZE, Usage, parse_ca, parse_csv
from kbs.attestation.hygon.chain import ChainVerifier, pinned_root, root_from_anchors
from kbs.attestation.hygon.json_form import ca_certificate as ca_bytes
from kbs.attestation.hygon.json_form import csv_certificate as csv_bytes
from kbs.attestation.hygon.sm2 import is_signed_by
from kbs.client.attesters.hygon import (
    CEK,
    HRK,
    HSK,
    INVALID,
    OCA,
    PEK,
    SoftwareHygon,
    ca_certificate,
    ca_json,
    csv_certificate,
    csv_json,
)
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import ChainInvalid, ConfigInvalid, EvidenceMalformed

VENDOR = SoftwareHygon(TestRoot())
STRANGER = SoftwareHygon(TestRoot())
CHIP = "CHIP1"
HSK_CEK = VENDOR.hsk_cek(CHIP)
PLATFORM = VENDOR.holder("pek-1", "HYGON-SSD-PEK")
OWNER = VENDOR.holder("oca", "HYGON-SSD-OCA")
GOOD_PEK = csv_certificate(PEK, PLATFORM, {CEK: VENDOR.cek(CHIP), OCA: OWNER})


def verifier(size: int = 100) -> ChainVerifier:
    return ChainVerifier(root_from_anchors(VENDOR.anchors), size)


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What SM2 was asked to verify."""
    asked: list[bytes] = []

    def counting(message: bytes, *rest: Any) -> bool:
        asked.append(message)
        return is_signed_by(message, *rest)

    monkeypatch.setattr(chain, "is_signed_by", counting)
    return iter([asked])


def test_a_good_chain() -> None:
    subject = verifier()
    cek = subject.verify_cek(HSK_CEK)
    assert cek.key.point == VENDOR.cek(CHIP).point
    pek = subject.verify_pek(GOOD_PEK, cek)
    assert (pek.key.point, pek.key.user_id, pek.usage) == (PLATFORM.point, b"HYGON-SSD-PEK", Usage.PEK)


def test_a_pek_may_have_its_chip_in_the_second_slot() -> None:
    subject = verifier()
    other_order = csv_certificate(PEK, PLATFORM, {OCA: OWNER, CEK: VENDOR.cek(CHIP)})
    assert subject.verify_pek(other_order, subject.verify_cek(HSK_CEK)).key.point == PLATFORM.point


def hsk(**changes: Any) -> bytes:
    return ca_certificate(HSK, VENDOR.hsk, VENDOR.hrk, **changes) + HSK_CEK[CA_SIZE:]


def cek(usage: int = CEK, issuers: dict[int, Any] | None = None, **changes: Any) -> bytes:
    return HSK_CEK[:CA_SIZE] + csv_certificate(usage, VENDOR.cek(CHIP), issuers or {HSK: VENDOR.hsk}, **changes)


WRONG_PAIRS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "cut": lambda: HSK_CEK[:-1],
    "longer": lambda: HSK_CEK + b"\0",
    "the other way round": lambda: HSK_CEK[CA_SIZE:] + HSK_CEK[:CA_SIZE],
    "of another vendor": lambda: STRANGER.hsk_cek(CHIP),
    "HSK of another vendor": lambda: STRANGER.hsk_cek(CHIP)[:CA_SIZE] + HSK_CEK[CA_SIZE:],
    "HSK signed by itself": lambda: ca_certificate(HSK, VENDOR.hsk, VENDOR.hsk) + HSK_CEK[CA_SIZE:],
    "HSK changed": lambda: hsk(after={20: b"\1"}),
    "HSK that is an HRK": lambda: ca_certificate(HRK, VENDOR.hsk, VENDOR.hrk) + HSK_CEK[CA_SIZE:],
    "HRK in place of the HSK": lambda: base64.b64decode(VENDOR.anchors["hrk"]) + HSK_CEK[CA_SIZE:],
    "HSK of version 2": lambda: hsk(version=2),
    "HSK of another curve": lambda: hsk(curve=1),
    "HSK off the curve": lambda: hsk(y=bytes(31) + b"\1"),
    "HSK with a wide coordinate": lambda: hsk(after={68 + 71: b"\1"}),
    "HSK without user id": lambda: hsk(uid_size=0),
    "HSK with too long a user id": lambda: hsk(uid_size=255),
    "CEK signed by a stranger": lambda: cek(issuers={HSK: STRANGER.hsk}),
    "CEK signed by the HRK": lambda: cek(issuers={HSK: VENDOR.hrk}),
    "CEK with no signature of an HSK": lambda: cek(issuers={OCA: VENDOR.hsk}),
    "CEK with two": lambda: cek(after={1564: HSK_CEK[CA_SIZE + 1044 : CA_SIZE + 1564]}),
    "CEK with another algorithm": lambda: cek(slot_algorithm=2),
    "CEK of another algorithm": lambda: cek(algorithm=5),
    "CEK that is a PEK": lambda: cek(PEK),
    "CEK that is invalid": lambda: cek(INVALID),
    "CEK of version 0": lambda: cek(version=0),
    "CEK of another curve": lambda: cek(curve=2),
    "CEK changed": lambda: cek(after={500: b"\1"}),
    "CEK with r of zero": lambda: cek(after={1044 + 8: bytes(72)}),
    "CEK with a wide s": lambda: cek(after={1044 + 151: b"\1"}),
}


@pytest.mark.parametrize("name", WRONG_PAIRS)
def test_wrong_hsk_and_cek_are_refused(name: str) -> None:
    with pytest.raises(ChainInvalid):
        verifier().verify_cek(WRONG_PAIRS[name]())


WRONG_PEKS: dict[str, Callable[[], bytes]] = {
    "of another chip": lambda: csv_certificate(PEK, PLATFORM, {CEK: VENDOR.cek("CHIP2"), OCA: OWNER}),
    "signed by its owner only": lambda: csv_certificate(PEK, PLATFORM, {OCA: OWNER}),
    "owner in the chip's place": lambda: csv_certificate(PEK, PLATFORM, {CEK: OWNER, OCA: OWNER}),
    "signed by itself": lambda: csv_certificate(PEK, PLATFORM, {CEK: PLATFORM}),
    "a PDH": lambda: csv_certificate(Usage.PDH, PLATFORM, {CEK: VENDOR.cek(CHIP)}),
    "the CEK": lambda: HSK_CEK[CA_SIZE:],
    "cut": lambda: GOOD_PEK[:-1],
    "another user id": lambda: csv_certificate(PEK, PLATFORM, {CEK: VENDOR.cek(CHIP)}, after={166: b"X"}),
}


@pytest.mark.parametrize("name", WRONG_PEKS)
def test_wrong_peks_are_refused(name: str) -> None:
    subject = verifier()
    found = subject.verify_cek(HSK_CEK)
    with pytest.raises(ChainInvalid):
        subject.verify_pek(WRONG_PEKS[name](), found)


def test_links_are_verified_once(signatures: Iterator[list[bytes]]) -> None:
    asked = next(signatures)
    subject = verifier()
    asked.clear()
    for _ in range(3):
        subject.verify_pek(GOOD_PEK, subject.verify_cek(HSK_CEK))
    assert len(asked) == 3
    # A byte that nothing signs (in the reserved part of the owner's slot) makes no new link of it.
    subject.verify_pek(GOOD_PEK[:-1] + b"\1", subject.verify_cek(HSK_CEK))
    assert len(asked) == 3
    subject.verify_cek(VENDOR.hsk_cek("CHIP2"))
    assert len(asked) == 4


def test_a_refusal_is_not_remembered(signatures: Iterator[list[bytes]]) -> None:
    asked = next(signatures)
    subject = verifier()
    asked.clear()
    for _ in range(2):
        with pytest.raises(ChainInvalid):
            subject.verify_cek(STRANGER.hsk_cek(CHIP))
    assert len(asked) == 2


def test_a_known_link_vouches_for_nothing_else() -> None:
    """The same PEK below another chip's CEK, and a signature moved to other bytes, start from nothing."""
    subject = verifier()
    subject.verify_pek(GOOD_PEK, subject.verify_cek(HSK_CEK))
    with pytest.raises(ChainInvalid):
        subject.verify_pek(GOOD_PEK, subject.verify_cek(VENDOR.hsk_cek("CHIP2")))
    with pytest.raises(ChainInvalid):
        subject.verify_pek(GOOD_PEK[:1043] + b"\1" + GOOD_PEK[1044:], subject.verify_cek(HSK_CEK))


def test_memory_is_bounded(signatures: Iterator[list[bytes]]) -> None:
    asked = next(signatures)
    subject = verifier(size=2)
    asked.clear()
    subject.verify_pek(GOOD_PEK, subject.verify_cek(HSK_CEK))  # forgets the oldest of three links: HSK
    subject.verify_cek(HSK_CEK)
    assert len(asked) > 3


def test_the_built_in_root() -> None:
    raw = pinned("hygon_hrk")
    assert pinned_root() == parse_ca(raw, Usage.HRK)
    assert pinned_root().key.user_id == b"HYGON-SSD-HRK"


HRK_CERTIFICATE = base64.b64decode(VENDOR.anchors["hrk"])


@pytest.mark.parametrize(
    "anchors",
    [
        {},
        {"hrk": None},
        {"hrk": "not base64!"},
        {"hrk": ""},
        {"hrk": VENDOR.anchors["hrk"], "ark": ""},
        {"hrk": base64.b64encode(HRK_CERTIFICATE[:-1]).decode()},
        {"hrk": base64.b64encode(HSK_CEK[:CA_SIZE]).decode()},
        {"hrk": base64.b64encode(ca_certificate(HRK, VENDOR.hrk, VENDOR.hsk)).decode()},
        {"hrk": base64.b64encode(ca_certificate(HRK, VENDOR.hrk, VENDOR.hrk, after={22: b"\1"})).decode()},
    ],
)
def test_unusable_anchors_are_refused(anchors: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        root_from_anchors(anchors)


def test_json_and_bytes_are_one_certificate() -> None:
    assert ca_bytes(ca_json(HSK_CEK[:CA_SIZE])) == HSK_CEK[:CA_SIZE]
    assert csv_bytes(csv_json(GOOD_PEK)) == GOOD_PEK


@pytest.mark.parametrize("value", [None, [], 1, "x", True, {}])
def test_what_is_no_certificate_in_json_is_refused(value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        ca_bytes(value)
    with pytest.raises(EvidenceMalformed):
        csv_bytes(value)


@pytest.mark.parametrize("sigs", [None, {}, [], [1, 2], [{}, {}, {}], csv_json(GOOD_PEK)["sigs"][:1]])
def test_a_certificate_has_two_slots(sigs: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        csv_bytes({**csv_json(GOOD_PEK), "sigs": sigs})


@given(st.binary(max_size=64), st.integers(0, CA_SIZE + CSV_SIZE))
def test_any_bytes_raise_nothing_else(patch: bytes, offset: int) -> None:
    raw = HSK_CEK[:offset] + patch + HSK_CEK[offset + len(patch) :]
    with suppress(ChainInvalid):
        parse_ca(raw[:CA_SIZE], Usage.HSK)
    with suppress(ChainInvalid):
        parse_csv(raw[CA_SIZE:], Usage.CEK)
