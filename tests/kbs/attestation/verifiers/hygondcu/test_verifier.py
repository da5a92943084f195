"""The DCU verifier on reports made in software: each check, several devices, each thing that may be missing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import hygondcu
from kbs.client.attesters.hygondcu import SoftwareHygonDcu
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ConfigInvalid,
    EndorsementMissing,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    SignatureInvalid,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce and key").digest()
ROOT = TestRoot()
DEVICES = SoftwareHygonDcu(ROOT, chips=("CHIP1", "CHIP2", "ABCDEFGHIJKLMNOP"))
STRANGER = SoftwareHygonDcu(chips=("CHIP1",))
VERIFIER = hygondcu.build(VerifierOptions({}, DEVICES.anchors))
SERVED = Endorsements({f"hygon/hsk-cek/{chip}": DEVICES.vendor.hsk_cek(chip) for chip in DEVICES.chips})


def claims(body: Any, endorsements: Endorsements = SERVED, binding: Binding | None = None) -> list[dict[str, Any]]:
    found = VERIFIER.verify(Evidence(Tee.HYGON_DCU, body), endorsements, binding or Binding(NONCE), AT)
    assert {(each.tee, each.device_class) for each in found} == {(Tee.HYGON_DCU, "dcu")}
    return [dict(each.claims) for each in found]


def test_claims_of_every_device_in_their_order() -> None:
    found = claims(DEVICES.evidence(NONCE))
    assert [each["chip"] for each in found] == ["CHIP1", "CHIP2", "ABCDEFGHIJKLMNOP"]
    assert found[0] == {
        "body": {
            "version": 1,
            "chip_id": b"CHIP1".ljust(16, b" ").hex(),
            "user_data": NONCE.hex() + "00" * 16,
            "measure": bytes(range(0xC0, 0xE0)).hex(),
            "reserved": "00" * 128,
            "sig_usage": "1004",
            "sig_algo": "4",
        },
        "chip": "CHIP1",
        "report_data": NONCE.hex() + "00" * 16,
        "binding": "checked",
        "revocation": "not_applicable",
    }


def test_needs_name_every_chip() -> None:
    needs = VERIFIER.needs(Evidence(Tee.HYGON_DCU, DEVICES.evidence(NONCE)))
    assert needs == [EndorsementNeed(name, required=True) for name in SERVED.items]


@pytest.mark.parametrize("padded", [b"CHIP1".ljust(16, b" "), b"CHIP1".ljust(16, b"\0"), b"CHIP1 \0 ".ljust(16, b"\0")])
def test_chip_ids_are_padded_with_anything_blank(padded: bytes) -> None:
    (found,) = claims(DEVICES.evidence(NONCE, chips=["CHIP1"], chip_id=padded))
    assert (found["chip"], found["body"]["chip_id"]) == ("CHIP1", padded.hex())


def mixed(**changes: Any) -> dict[str, Any]:
    """Two good reports with a changed one between."""
    good = [DEVICES.report(chip, NONCE) for chip in ("CHIP1", "ABCDEFGHIJKLMNOP")]
    return {"attestation_reports": [good[0], DEVICES.report("CHIP2", **{"report_data": NONCE, **changes}), good[1]]}


def swapped() -> dict[str, Any]:
    first, second = DEVICES.evidence(NONCE, chips=["CHIP1", "CHIP2"])["attestation_reports"]
    return {"attestation_reports": [{**first, "sig": second["sig"]}, {**second, "sig": first["sig"]}]}


WRONG: dict[str, tuple[type[EvidenceRejected], Callable[[], Any]]] = {
    "other user data": (BindingMismatch, lambda: mixed(report_data=NONCE[:-1])),
    "something behind the digest": (BindingMismatch, lambda: mixed(user_data=NONCE.ljust(63, b"\0") + b"\1")),
    "signed by another chip": (SignatureInvalid, lambda: mixed(signer=DEVICES.vendor.cek("CHIP1"))),
    "signed by another vendor": (SignatureInvalid, lambda: mixed(signer=STRANGER.vendor.cek("CHIP2"))),
    "signatures swapped": (SignatureInvalid, swapped),
    "version 0": (EvidenceVersionUnsupported, lambda: mixed(version=0)),
    "version 2": (EvidenceVersionUnsupported, lambda: mixed(version=2)),
    "signed by a PEK": (EvidenceVersionUnsupported, lambda: mixed(sig_usage=0x1002)),
    "another algorithm": (EvidenceVersionUnsupported, lambda: mixed(sig_algo=1)),
    "chip id empty": (EvidenceMalformed, lambda: mixed(chip_id=bytes(16))),
    "chip id with a path": (EvidenceMalformed, lambda: mixed(chip_id=b"../../etc/passwd")),
    "chip id with a blank inside": (EvidenceMalformed, lambda: mixed(chip_id=b"CHIP 2".ljust(16))),
    "chip id with a line end": (EvidenceMalformed, lambda: mixed(chip_id=b"CHIP2\n".ljust(16))),
    "chip id beyond ASCII": (EvidenceMalformed, lambda: mixed(chip_id=b"CHIP\xc3\xa9".ljust(16))),
    "the same chip, padded in another way": (EvidenceMalformed, lambda: mixed(chip_id=b"CHIP1".ljust(16, b"\0"))),
    "no report": (EvidenceMalformed, lambda: {"attestation_reports": []}),
    "too many": (EvidenceMalformed, lambda: {"attestation_reports": [{}] * 65}),
    "no list": (EvidenceMalformed, lambda: {"attestation_reports": {}}),
    "a number": (EvidenceMalformed, lambda: {"attestation_reports": 1}),
    "reports by name": (EvidenceMalformed, lambda: {"attestation_reports": {"a": DEVICES.report("CHIP1", NONCE)}}),
    "one that is none": (EvidenceMalformed, lambda: {"attestation_reports": [DEVICES.report("CHIP1", NONCE), None]}),
    "r of zero": (
        SignatureInvalid,
        lambda: {"attestation_reports": [DEVICES.report("CHIP1", NONCE) | {"sig": {"r": [0] * 72, "s": [1] * 72}}]},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_bad_report_refuses_all(name: str) -> None:
    expected, make = WRONG[name]
    with pytest.raises(expected):
        claims(make())


def test_an_empty_challenge_is_no_challenge() -> None:
    with pytest.raises(BindingMismatch):
        claims(DEVICES.evidence(b""), binding=Binding(b""))


def test_without_certificates_of_every_chip_it_is_refused() -> None:
    body = DEVICES.evidence(NONCE)
    for chip in DEVICES.chips:
        name = f"hygon/hsk-cek/{chip}"
        with pytest.raises(EndorsementMissing):
            claims(body, Endorsements({other: pair for other, pair in SERVED.items.items() if other != name}))
        with pytest.raises(ChainInvalid):
            claims(body, Endorsements({**SERVED.items, name: STRANGER.vendor.hsk_cek("CHIP1")}))


def test_certificates_of_two_chips_swapped() -> None:
    names = [f"hygon/hsk-cek/CHIP{number}" for number in (1, 2)]
    given = Endorsements({**SERVED.items, names[0]: SERVED.items[names[1]], names[1]: SERVED.items[names[0]]})
    with pytest.raises(SignatureInvalid):
        claims(DEVICES.evidence(NONCE), given)


def test_endorsements_given_by_hand() -> None:
    evidence = Evidence(Tee.HYGON_DCU, DEVICES.evidence(NONCE))
    assert VERIFIER.endorsements_from(evidence, DEVICES.endorsements) == SERVED
    assert VERIFIER.endorsements_from(evidence, {"other": 1}) == Endorsements()
    text = base64.b64encode(SERVED.items["hygon/hsk-cek/CHIP1"]).decode()
    found = VERIFIER.endorsements_from(evidence, {"hsk_cek": text})
    assert set(found.items) == set(SERVED.items)
    assert set(found.items.values()) == {SERVED.items["hygon/hsk-cek/CHIP1"]}
    unusable: tuple[Any, ...] = (1, [], "!", {"CHIP1": 1})
    for wrong in unusable:
        with pytest.raises(EvidenceMalformed):
            VERIFIER.endorsements_from(evidence, {"hsk_cek": wrong})


def test_options_and_anchors() -> None:
    with pytest.raises(ConfigInvalid):
        hygondcu.build(VerifierOptions({"x": 1}))
    with pytest.raises(ConfigInvalid):
        hygondcu.build(VerifierOptions({}, {}))
    evidence = Evidence(Tee.HYGON_DCU, DEVICES.evidence(NONCE))
    with pytest.raises(ChainInvalid):
        hygondcu.build(VerifierOptions()).verify(evidence, SERVED, Binding(NONCE), AT)
