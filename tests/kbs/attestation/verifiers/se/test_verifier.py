"""Challenges and their answers, and every way to get an answer wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kbs.attestation.model import (
    MAX_KEPT,
    Binding,
    ChallengingVerifier,
    Endorsements,
    Evidence,
    VerifierChallenge,
    VerifierOptions,
)
from kbs.attestation.verifiers.se import SeVerifier, build
from kbs.attestation.verifiers.se.arcb import MAX_HOST_KEYS
from kbs.attestation.verifiers.se.issued import Issued
from kbs.client.attesters.se import RequestUnreadable, SoftwareSe, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    EndorsementsUnavailable,
    EvidenceMalformed,
    EvidenceRejected,
    SignatureInvalid,
    SignerNotTrusted,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
DIGEST = hashlib.sha512(b"nonce and key").digest()
INLINE = ("host_key_documents", "certificates", "revocation_lists", "image_headers", "root_ca")


def files_of(*machines: SoftwareSe) -> dict[str, Any]:
    """Anchors with the files of all machines, and no lists of host keys beside them."""
    found: dict[str, list[str]] = {}
    for machine in machines:
        for member in INLINE:
            found.setdefault(member, []).extend(each for each in machine.anchors[member] if each not in found[member])
    return found


@dataclass
class Exchange:
    """A verifier, a challenge of its own, and what it kept."""

    verifier: SeVerifier
    asked: VerifierChallenge

    def verify(self, body: Any, *, digest: bytes | None = DIGEST, kept: bytes | None = None) -> Mapping[str, Any]:
        """The claims of the one claim set."""
        binding = Binding(digest, None, self.asked.kept if kept is None else kept)
        (found,) = self.verifier.verify(Evidence(Tee.SE, body), Endorsements(), binding, AT)
        assert (found.tee, found.device_class) == (Tee.SE, "cpu")
        return found.claims


def exchange(*machines: SoftwareSe, at: datetime = AT, **options: Any) -> Exchange:
    verifier = build(VerifierOptions(options, files_of(*machines)))
    assert isinstance(verifier, SeVerifier)
    return Exchange(verifier, verifier.challenge(os.urandom, at))


MACHINE = SoftwareSe()
OPEN = exchange(MACHINE)
GOOD = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST)


def test_the_port() -> None:
    assert isinstance(OPEN.verifier, ChallengingVerifier)
    assert OPEN.verifier.needs(Evidence(Tee.SE, GOOD)) == ()


def test_the_challenge_on_the_wire() -> None:
    question = json.loads(OPEN.asked.nonce)
    assert list(question) == [
        "request_blob", "measurement_size", "additional_size", "encr_measurement_key", "encr_request_nonce",
        "image_hdr_tags",
    ]  # fmt: skip
    assert (question["measurement_size"], question["additional_size"]) == (64, 64)
    assert base64.b64decode(question["image_hdr_tags"]) == MACHINE.tags
    assert len(base64.b64decode(question["request_blob"])) == 400


def test_the_challenge_does_not_hold_what_is_kept() -> None:
    """Neither the measurement key nor the nonce travels in any form but for the machine's eyes."""
    issued = Issued.unpack(OPEN.asked.kept)
    assert issued is not None
    sent = json.loads(OPEN.asked.nonce)
    octets = b"".join(base64.b64decode(value) for value in sent.values() if isinstance(value, str))
    for secret in (issued.measurement_key, issued.nonce):
        assert secret not in octets
        assert secret.hex() not in OPEN.asked.nonce
    assert "kept" not in repr(OPEN.asked)


def test_good_evidence() -> None:
    claims = OPEN.verify(GOOD)
    assert claims == {
        "cuid": MACHINE.cuid.hex(),
        "version": 256,
        "image_phkh": MACHINE.phkh.hex(),
        "attestation_phkh": MACHINE.phkh.hex(),
        "pld": MACHINE.tags[:64].hex(),
        "ald": MACHINE.tags[64:128].hex(),
        "tld": MACHINE.tags[128:192].hex(),
        "tag": MACHINE.tags[192:].hex(),
        "image_listed": True,
        "host_keys_listed": True,
        "report_data": DIGEST.hex(),
        "binding": "checked",
        "revocation": "checked",
    }


def test_without_a_binding_the_claims_say_so() -> None:
    assert OPEN.verify(GOOD, digest=None)["binding"] == "not_checked"


def test_every_challenge_is_another() -> None:
    one, two = (OPEN.verifier.challenge(os.urandom, AT) for _ in range(2))
    assert one.kept != two.kept
    assert json.loads(one.nonce)["request_blob"] != json.loads(two.nonce)["request_blob"]


def test_what_is_kept_fits_with_the_most_machines() -> None:
    root = TestRoot()
    machines = [SoftwareSe(root, machine=str(number)) for number in range(MAX_HOST_KEYS)]
    crowd = exchange(*machines)
    assert len(crowd.asked.kept) <= MAX_KEPT
    assert crowd.verify(machines[-1].evidence_for_challenge(crowd.asked.nonce, DIGEST))["host_keys_listed"]


# --- replay and forgery -----------------------------------------------------------------------------------------------


def test_an_answer_to_another_challenge_is_refused() -> None:
    other = OPEN.verifier.challenge(os.urandom, AT)
    with pytest.raises(SignatureInvalid):
        OPEN.verify(GOOD, kept=other.kept)


def test_an_answer_to_another_brokers_challenge_is_refused() -> None:
    """Another broker, or one with another set of keys, asked the same machine."""
    other = exchange(MACHINE)
    body = MACHINE.evidence_for_challenge(other.asked.nonce, DIGEST)
    assert other.verify(body)
    with pytest.raises(SignatureInvalid):
        OPEN.verify(body)


def test_a_measurement_key_that_an_attacker_chose_is_refused() -> None:
    """The attack on the reference implementation: any key will do, if it is sent along."""
    question = json.loads(OPEN.asked.nonce)
    for sent in (
        {"encr_measurement_key": b"k" * 64, "encr_request_nonce": b"n" * 16},
        {name: base64.b64decode(question[name]) for name in ("encr_measurement_key", "encr_request_nonce")},
    ):
        body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, key=b"k" * 64, **sent)
        with pytest.raises(SignatureInvalid):
            OPEN.verify(body)


@pytest.mark.parametrize("name", ["encr_measurement_key", "encr_request_nonce"])
@pytest.mark.parametrize("value", [b"", bytes(16), bytes(32), b"\xff" * 512])
def test_opaque_members_come_back_as_they_were_sent(name: str, value: bytes) -> None:
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, **{name: value})
    with pytest.raises(SignatureInvalid) as caught:
        OPEN.verify(body)
    assert str(caught.value) == "the SE measurement does not verify"


def test_no_challenge_no_acceptance() -> None:
    with pytest.raises(SignatureInvalid):
        OPEN.verifier.verify(Evidence(Tee.SE, GOOD), Endorsements(), Binding(DIGEST), AT)


def test_what_another_release_kept_is_nothing_issued() -> None:
    kept = OPEN.asked.kept
    for other in (b"\2" + kept[1:], kept[:-1], kept + b"\0", kept[:-32], kept + bytes(32 * MAX_HOST_KEYS), b"\1"):
        with pytest.raises(SignatureInvalid):
            OPEN.verify(GOOD, kept=other)


def test_settings_do_not_add_to_what_a_handshake_issued() -> None:
    verifier = build(VerifierOptions(MACHINE.options, MACHINE.anchors))
    body = MACHINE.evidence(DIGEST)
    assert verifier.verify(Evidence(Tee.SE, body), Endorsements(), Binding(DIGEST), AT)
    with pytest.raises(SignatureInvalid):
        verifier.verify(Evidence(Tee.SE, body), Endorsements(), Binding(DIGEST, None, OPEN.asked.kept), AT)


def test_only_what_was_made_here_can_be_kept() -> None:
    with pytest.raises(ValueError, match="made here"):
        Issued(bytes(64), bytes(16)).pack()


# --- machines and images ----------------------------------------------------------------------------------------------


def test_a_machine_that_was_not_asked_cannot_answer() -> None:
    with pytest.raises(RequestUnreadable):
        SoftwareSe(machine="stranger").evidence_for_challenge(OPEN.asked.nonce, DIGEST)


def test_a_host_key_that_was_not_asked_is_refused() -> None:
    """A machine whose answer names another host key than those of the request."""
    additional = MACHINE.phkh + bytes(32)
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, measured={"additional_data": additional})
    with pytest.raises(SignerNotTrusted, match="not asked"):
        OPEN.verify(body)


def test_an_image_unpacked_with_a_key_it_was_not_made_for_is_refused() -> None:
    additional = bytes(32) + MACHINE.phkh
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, measured={"additional_data": additional})
    with pytest.raises(SignerNotTrusted, match="not allowed"):
        OPEN.verify(body)


def test_lists_in_the_anchors_narrow_what_files_allow() -> None:
    for member in ("image_phkh", "attestation_phkh"):
        verifier = build(VerifierOptions({}, {**files_of(MACHINE), member: ["00" * 32]}))
        assert isinstance(verifier, SeVerifier)
        asked = verifier.challenge(os.urandom, AT)
        with pytest.raises(SignerNotTrusted):
            Exchange(verifier, asked).verify(MACHINE.evidence_for_challenge(asked.nonce, DIGEST))


def test_an_image_that_is_not_listed_is_refused() -> None:
    """It sends back the tags it was asked with, and its measurement is over its own."""
    other = SoftwareSe(TestRoot(), image="other")
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, tags=other.tags)
    with pytest.raises(SignatureInvalid):
        OPEN.verify(body)
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, tags=other.tags, image_hdr_tags=other.tags)
    with pytest.raises(SignatureInvalid) as caught:
        OPEN.verify(body)
    assert "not configured" in (caught.value.operator_detail or "")


def test_any_of_several_images_is_recognised() -> None:
    root = TestRoot()
    machines = [SoftwareSe(root, image=name) for name in ("one", "two", "three")]
    several = exchange(*machines)
    for machine in machines:
        claims = several.verify(machine.evidence_for_challenge(several.asked.nonce, DIGEST))
        assert claims["tag"] == machine.tags[192:].hex()


def test_revocation_that_was_not_checked_shows() -> None:
    machine = SoftwareSe(without_lists=["root"])
    with pytest.raises(EndorsementsUnavailable):
        exchange(machine)
    relaxed = exchange(machine, allow_unchecked_revocation=["se"])
    claims = relaxed.verify(machine.evidence_for_challenge(relaxed.asked.nonce, DIGEST))
    assert (claims["revocation"], claims["revocation_waived"]) == ("not_checked", True)


@pytest.mark.parametrize(
    "machine",
    [
        SoftwareSe(revoked=["host"]),
        SoftwareSe(revoked=["service"]),
        SoftwareSe(without_lists=["service"]),
        SoftwareSe(validities=Validities(host_key=(AT - timedelta(days=2), AT - timedelta(days=1)))),
        SoftwareSe(validities=Validities(lists=(AT - timedelta(days=2), AT - timedelta(days=1)))),
    ],
    ids=["revoked", "service revoked", "no list", "expired", "stale list"],
)
def test_no_machine_that_may_be_asked(machine: SoftwareSe, caplog: pytest.LogCaptureFixture) -> None:
    verifier = build(VerifierOptions({}, files_of(machine)))
    assert isinstance(verifier, SeVerifier)
    with caplog.at_level(logging.WARNING, "kbs.attestation"):
        for _ in range(3):
            with pytest.raises(EndorsementsUnavailable, match="no host key may be used"):
                verifier.challenge(os.urandom, AT)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["SE host-key document is not used"]


def test_by_hand_nobody_can_be_asked() -> None:
    verifier = build(VerifierOptions({}, {}))
    assert isinstance(verifier, SeVerifier)
    with pytest.raises(EndorsementsUnavailable):
        verifier.challenge(os.urandom, AT)


def test_by_hand_without_lists_the_claims_say_so() -> None:
    verifier = build(VerifierOptions(MACHINE.options))
    (found,) = verifier.verify(Evidence(Tee.SE, MACHINE.evidence(DIGEST)), Endorsements(), Binding(DIGEST), AT)
    assert (found.claims["image_listed"], found.claims["host_keys_listed"]) == (False, False)
    assert found.claims["revocation"] == "not_applicable"


# --- binding ----------------------------------------------------------------------------------------------------------


def test_the_whole_of_user_data_is_compared() -> None:
    for user_data in (DIGEST + b"\0", DIGEST + b"suffix", DIGEST[:-1], DIGEST[:32], b"", bytes(64), bytes(256)):
        body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST, measured={"user_data": user_data})
        with pytest.raises(BindingMismatch):
            OPEN.verify(body)


@pytest.mark.parametrize("size", [0, 1, 31])
def test_a_digest_that_binds_too_little(size: int) -> None:
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST[:size])
    with pytest.raises(BindingMismatch):
        OPEN.verify(body, digest=DIGEST[:size])


def test_a_shorter_digest_is_filled_with_zeros() -> None:
    body = MACHINE.evidence_for_challenge(OPEN.asked.nonce, DIGEST[:48])
    assert OPEN.verify(body, digest=DIGEST[:48])


# --- bad input --------------------------------------------------------------------------------------------------------


def test_members_that_nobody_knows_are_not_looked_at() -> None:
    assert OPEN.verify({**GOOD, "extra": [1], "runtime_data_digest": "x"}) == OPEN.verify(GOOD)


@pytest.mark.parametrize("body", [None, [], [GOOD], "", "evidence", 7, True, b""])
def test_what_is_no_evidence(body: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        OPEN.verify(body)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: None,
        lambda text: 7,
        lambda text: [text],
        lambda text: text + "A",
        lambda text: text + "AAAA" * 400,
        lambda text: "\n" + text,
        lambda text: text[:-1],
        lambda text: text.replace("=", "") + "*",
        lambda text: "é" * 88,
        lambda text: text.encode(),
    ],
)
def test_members_of_a_wrong_form(name: str, spoil: Callable[[str], Any]) -> None:
    with pytest.raises(EvidenceMalformed):
        OPEN.verify({**GOOD, name: spoil(GOOD[name])})


def mutations() -> Iterator[dict[str, Any]]:
    """Bytes flipped, members cut, extended, exchanged with those of another good answer, left out."""
    other = MACHINE.evidence_for_challenge(OPEN.verifier.challenge(os.urandom, AT).nonce, DIGEST)
    chance = random.Random(9)
    octets = {name: base64.b64decode(value) for name, value in GOOD.items()}
    for name, value in octets.items():
        yield {member: each for member, each in GOOD.items() if member != name}
        if other[name] != GOOD[name]:
            yield {**GOOD, name: other[name]}
        changed = [
            bytes([*value[:at], value[at] ^ 1 << chance.randrange(8), *value[at + 1 :]]) for at in range(len(value))
        ]
        changed += changed[: 170 - len(changed)]
        changed += [value[:-1], value[1:], value + b"\0", b"\0" + value, value[::-1] + b"x", value * 2, b""]
        changed += [chance.randbytes(chance.randrange(300)) for _ in range(60)]
        for each in changed:
            yield {**GOOD, name: base64.b64encode(each).decode()}


def test_mutated_evidence_is_refused_and_nothing_else() -> None:
    causes: dict[str, int] = {}
    for body in mutations():
        with pytest.raises(EvidenceRejected) as caught:
            OPEN.verify(body)
        assert type(caught.value) is not EvidenceRejected
        causes[caught.value.reason] = causes.get(caught.value.reason, 0) + 1
    assert sum(causes.values()) >= 1000
    assert set(causes) == {"evidence_malformed", "signature_invalid"}
