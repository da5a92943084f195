"""Whole handshakes of IBM Secure Execution, the one TEE that is asked in its own words (KBS protocol 2.7)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kbs.client.attesters.se import RequestUnreadable, SoftwareSe, Validities
from kbs.client.attesters.test_root import TestRoot
from kbs.client.guest import GuestClient
from kbs.client.sample_attester import SampleAttester
from kbs.protocol.rcar import Challenge
from kbs.protocol.runtime_data import HashAlgorithm, device_runtime_data, digest, primary_runtime_data
from tests.fakes.broker import START, TEE_KEY, Answer, BrokerUnderTest, Edge, Request, session

SECRET = b"a secret"
TEES = '["se", "sampledevice"]'
SIZE_OF_A_JAR = 4096  # octets that every cookie jar takes (RFC 6265 section 6.1)


@dataclass
class Site:
    """A broker that takes `se`, and the machine it knows."""

    broker: BrokerUnderTest
    machine: SoftwareSe
    folder: Path

    def guest(self, machine: SoftwareSe | None = None) -> GuestClient:
        return self.broker.guest(tee="se", attester=machine or self.machine)

    def attest(self, body: bytes, cookie: str) -> Answer:
        return self.broker.send(Request("POST", "/kbs/v0/attest", session(cookie), body))


def site(tmp_path: Path, edge: Edge, machine: SoftwareSe, name: str = "site", **settings: str) -> Site:
    folder = tmp_path / name / "se-files"
    machine.write_folder(folder)
    broker = BrokerUnderTest(
        tmp_path / name / "data",
        edge,
        own_keys=name != "site",
        settings={
            "KBS__ATTESTATION__TEES": '["se", "sample"]',
            "KBS__ATTESTATION__INSECURE_SAMPLE": "true",
            "KBS__ATTESTATION__OPTIONS": f'{{se = {{se_directory = "{folder}"}}}}',
            **settings,
        },
    )
    broker.put_secret(value=SECRET)
    return Site(broker, machine, folder)


@pytest.fixture
def known(tmp_path: Path, edge: Edge, shared_modules: None) -> Iterator[Site]:
    made = site(tmp_path, edge, SoftwareSe())
    yield made
    made.broker.close()


def opened(guest: GuestClient) -> tuple[Challenge, str]:
    challenge = guest.challenge()
    assert guest.cookie is not None
    return challenge, guest.cookie


def body_of(challenge: Challenge, evidence: Any) -> bytes:
    return json.dumps(
        {
            "init-data": None,
            "runtime-data": {"nonce": challenge.nonce, "tee-pubkey": dict(TEE_KEY.public.members)},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
    ).encode()


def bound(challenge: Challenge) -> bytes:
    return digest(primary_runtime_data(challenge.nonce, TEE_KEY.public, ""), HashAlgorithm.SHA512)


def test_a_genuine_guest_gets_its_secret_under_the_default_policies(known: Site) -> None:
    """Nothing but the operator's files is registered: no reference value."""
    guest = known.guest()
    token = guest.attest()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert guest.get_resource("default/key/1") == SECRET


def test_the_challenge_on_the_wire(known: Site) -> None:
    answer = known.broker.call(
        "POST",
        "/kbs/v0/auth",
        body=b'{"version":"0.4.0","tee":"se","extra-params":{"supported-hash-algorithms":["sha256","SHA512"]}}',
    )
    assert answer.status == 200
    assert list(answer.json) == ["nonce", "extra-params"]
    assert answer.json["extra-params"] == {"selected-hash-algorithm": "sha512"}
    question = json.loads(answer.json["nonce"])
    assert question["measurement_size"] == 64
    assert len(answer.header("set-cookie") or "") < SIZE_OF_A_JAR


def test_other_tees_are_asked_as_ever(known: Site) -> None:
    challenge = known.broker.guest().challenge()
    assert len(base64.b64decode(challenge.nonce)) == 32
    assert challenge.extra_params == ""
    assert known.broker.guest().attest()


@pytest.mark.parametrize(
    "extra", ["sha384", {"supported-hash-algorithms": ["sha384"]}, {"supported-hash-algorithms": 1}]
)
def test_hash_algorithms_that_do_not_fit(known: Site, extra: Any) -> None:
    body = json.dumps({"version": "0.4.0", "tee": "se", "extra-params": extra}).encode()
    answer = known.broker.call("POST", "/kbs/v0/auth", body=body)
    assert answer.status == (200 if isinstance(extra, str) else 400)


def test_the_same_answer_twice(known: Site) -> None:
    """With the identical body the identical token; any other body finds the challenge used."""
    guest = known.guest()
    challenge, cookie = opened(guest)
    body = guest.attestation_for(challenge)
    first, second = known.attest(body, cookie), known.attest(body, cookie)
    assert (first.status, second.status) == (200, 200)
    assert first.json == second.json
    again = body_of(challenge, known.machine.evidence_for_challenge(challenge.nonce, bound(challenge)))
    assert known.attest(again + b" ", cookie).status == 401


def test_an_answer_in_another_session(known: Site) -> None:
    """The recorded exchange, replayed: with its own nonce, and with the new one."""
    guest = known.guest()
    challenge, cookie = opened(guest)
    recorded = guest.attestation_for(challenge)
    assert known.attest(recorded, cookie).status == 200
    evidence = json.loads(recorded)["tee-evidence"]["primary_evidence"]
    for keeps_nonce in (True, False):
        other, fresh = opened(known.guest())
        assert known.attest(recorded if keeps_nonce else body_of(other, evidence), fresh).status == 401


def test_after_a_failure_the_challenge_is_used(known: Site) -> None:
    guest = known.guest()
    challenge, cookie = opened(guest)
    evidence = known.machine.evidence_for_challenge(challenge.nonce, bound(challenge), cuid=bytes(16))
    assert known.attest(body_of(challenge, evidence), cookie).status == 401
    assert known.attest(guest.attestation_for(challenge), cookie).status == 401


@pytest.mark.parametrize(("seconds", "status"), [(299, 200), (301, 401)])
def test_the_challenge_ends(known: Site, seconds: int, status: int) -> None:
    guest = known.guest()
    challenge, cookie = opened(guest)
    body = guest.attestation_for(challenge)
    known.broker.clock.advance(seconds)
    assert known.attest(body, cookie).status == status


def test_a_forged_measurement_key(known: Site) -> None:
    """Who has no machine picks a key, works out the HMAC and sends the key along, in place of an answer."""
    for sent in ({}, {"encr_measurement_key": b"k" * 512, "encr_request_nonce": b"n" * 512}):
        challenge, cookie = opened(known.guest())
        evidence = known.machine.evidence_for_challenge(challenge.nonce, bound(challenge), key=b"k" * 64, **sent)
        answer = known.attest(body_of(challenge, evidence), cookie)
        assert (answer.status, answer.name) == (401, "AttestationError")


def test_refusals_look_alike(known: Site) -> None:
    """A wrong key, a wrong echo, another image, garbage: one answer, so that nothing can be learned from it."""
    seen = set()
    for changes in (
        {"key": b"k" * 64},
        {"encr_measurement_key": bytes(512)},
        {"encr_request_nonce": b""},
        {"tags": bytes(208)},
        {"image_hdr_tags": bytes(208)},
        {"measurement": bytes(64)},
    ):
        challenge, cookie = opened(known.guest())
        evidence = known.machine.evidence_for_challenge(challenge.nonce, bound(challenge), **changes)
        document = known.attest(body_of(challenge, evidence), cookie).json
        seen.add(tuple(document[name] for name in ("type", "detail", "status", "reason")))
    assert len(seen) == 1


@pytest.mark.parametrize("change", ["nonce", "key"])
def test_evidence_for_another_nonce_or_key(known: Site, change: str) -> None:
    challenge, cookie = opened(known.guest())
    nonce = challenge.nonce if change == "key" else challenge.nonce.replace(":64,", ": 64,", 1)
    key = TEE_KEY if change == "nonce" else type(TEE_KEY).generate()
    other = digest(primary_runtime_data(nonce, key.public, ""), HashAlgorithm.SHA512)
    evidence = known.machine.evidence_for_challenge(challenge.nonce, other)
    assert known.attest(body_of(challenge, evidence), cookie).status == 401


def test_the_nonce_comes_back_as_it_was(known: Site) -> None:
    """The guest puts its digest into a copy; the text itself is echoed, octet for octet."""
    challenge, cookie = opened(known.guest())
    with_digest = json.dumps({**json.loads(challenge.nonce), "runtime_data_digest": "AAAA"})
    other = Challenge(with_digest, challenge.extra_params)
    evidence = known.machine.evidence_for_challenge(with_digest, bound(other))
    assert known.attest(body_of(other, evidence), cookie).status == 401


def test_a_machine_with_another_host_key(known: Site) -> None:
    stranger = SoftwareSe(machine="stranger")
    guest = known.guest(stranger)
    challenge = guest.challenge()
    with pytest.raises(RequestUnreadable):
        guest.attestation_for(challenge)


def test_another_brokers_request(known: Site, tmp_path: Path, edge: Edge) -> None:
    """The machine is genuine and known to both; what it answered the other is worth nothing here."""
    other = site(tmp_path, edge, known.machine, "other")
    try:
        theirs, their_cookie = opened(other.guest())
        ours, cookie = opened(known.guest())
        mixed = json.loads(ours.nonce) | {"request_blob": json.loads(theirs.nonce)["request_blob"]}
        for evidence, challenge in (
            (known.machine.evidence_for_challenge(theirs.nonce, bound(theirs)), theirs),
            (known.machine.evidence_for_challenge(theirs.nonce, bound(ours)), ours),
            (known.machine.evidence_for_challenge(json.dumps(mixed), bound(ours)), ours),
        ):
            assert known.attest(body_of(challenge, evidence), cookie).status == 401
            ours_again = opened(known.guest())
            cookie = ours_again[1]
        assert known.attest(other.guest().attestation_for(theirs), their_cookie).status == 401  # cookie of the other
    finally:
        other.broker.close()


def test_workers_on_one_store(tmp_path: Path, edge: Edge, shared_modules: None) -> None:
    """Nothing of the challenge is in the worker that made it: another one takes the answer."""
    first = site(tmp_path, edge, SoftwareSe(), KBS__STORAGE__KIND="sqlite")
    second = BrokerUnderTest(first.broker.data, edge, settings=first.broker.settings, clock=first.broker.clock)
    try:
        guest = first.guest()
        challenge, cookie = opened(guest)
        body = guest.attestation_for(challenge)
        assert second.send(Request("POST", "/kbs/v0/attest", session(cookie), body)).status == 200
        assert first.attest(body, cookie).status == 200  # the token that the other one made
        changed = body.replace(b'"init-data":null', b'"init-data": null')
        assert first.attest(changed, cookie).status == 401
    finally:
        second.close()
        first.broker.close()


@pytest.mark.parametrize("count", [20])
def test_answers_at_the_same_time(known: Site, count: int) -> None:
    """Different bodies for one challenge: one is judged, the others find it used."""
    challenge, cookie = opened(known.guest())
    evidence = known.machine.evidence_for_challenge(challenge.nonce, bound(challenge))
    bodies = [body_of(challenge, evidence) + b" " * number for number in range(count)]
    requests = [Request("POST", "/kbs/v0/attest", session(cookie), body) for body in bodies]
    statuses = [answer.status for answer in known.broker.send_all(requests)]
    assert sorted(statuses) == [200] + [401] * (count - 1)


EXPIRED = (START - timedelta(days=9), START - timedelta(seconds=1))


@pytest.mark.parametrize(
    "machine",
    [
        SoftwareSe(validities=Validities(host_key=EXPIRED)),
        SoftwareSe(validities=Validities(service=EXPIRED)),
        SoftwareSe(validities=Validities(lists=EXPIRED)),
        SoftwareSe(revoked=["host"]),
        SoftwareSe(revoked=["service"]),
        SoftwareSe(without_lists=["intermediate"]),
    ],
    ids=["expired document", "expired service", "stale list", "revoked document", "revoked service", "no list"],
)
def test_no_host_key_that_may_be_asked(machine: SoftwareSe, tmp_path: Path, edge: Edge, shared_modules: None) -> None:
    """The broker starts, says 503 to guests of this TEE alone, and names no file to them."""
    found = site(tmp_path, edge, machine)
    try:
        answer = found.broker.call("POST", "/kbs/v0/auth", body=b'{"version":"0.4.0","tee":"se","extra-params":""}')
        assert (answer.status, answer.name) == (503, "DependencyUnavailable")
        assert answer.header("retry-after")
        assert answer.header("set-cookie") is None
        assert str(found.folder).encode() not in answer.body
        assert found.broker.guest().attest()
    finally:
        found.broker.close()


def test_a_document_that_is_revoked_while_the_broker_runs(known: Site) -> None:
    known.guest().attest()
    (known.folder / "crls/service.crl").write_bytes(SoftwareSe(revoked=["host"]).revocation_list("service"))
    answer = known.broker.call("POST", "/kbs/v0/auth", body=b'{"version":"0.4.0","tee":"se","extra-params":""}')
    assert answer.status == 503


def test_missing_lists_that_an_operator_tolerates(tmp_path: Path, edge: Edge, shared_modules: None) -> None:
    allowed = {"KBS__ATTESTATION__ALLOW_UNCHECKED_REVOCATION": '["se"]'}
    found = site(tmp_path, edge, SoftwareSe(without_lists=["root"]), **allowed)
    try:
        assert found.guest().get_resource("default/key/1") == SECRET
    finally:
        found.broker.close()


def test_evidence_as_that_of_a_device_is_refused(known: Site) -> None:
    """Nobody asked it: a device has no challenge of its own."""
    guest = known.broker.guest()
    challenge = guest.challenge()
    asked = known.guest().challenge()
    evidence = known.machine.evidence_for_challenge(asked.nonce, bound(challenge))
    body = json.loads(guest.attestation_for(challenge))
    body["tee-evidence"]["additional_evidence"] = json.dumps({"se": evidence})
    assert guest.cookie is not None
    assert known.attest(json.dumps(body).encode(), guest.cookie).status == 401


def test_two_images_and_two_machines(tmp_path: Path, edge: Edge, shared_modules: None) -> None:
    root = TestRoot()
    one = SoftwareSe(root)
    two = SoftwareSe(root, machine="two", image="two")
    found = site(tmp_path, edge, one)
    try:
        (found.folder / "hkds/two.crt").write_bytes(two.host_key_document())
        (found.folder / "hdr/two.bin").write_bytes(two.image_header)
        for machine in (one, two):
            assert found.guest(machine).get_resource("default/key/1") == SECRET
        crossed = SoftwareSe(root, machine="two", image="one")  # an image that was not made for this machine
        challenge, cookie = opened(found.guest())
        evidence = crossed.evidence_for_challenge(challenge.nonce, bound(challenge))
        assert found.attest(body_of(challenge, evidence), cookie).status == 401
    finally:
        found.broker.close()


def test_records_and_logs_hold_no_key(known: Site, capsys: pytest.CaptureFixture[str]) -> None:
    challenge, cookie = opened(known.guest())
    key, nonce = known.machine.open_request(base64.b64decode(json.loads(challenge.nonce)["request_blob"]))
    evidence = known.machine.evidence_for_challenge(challenge.nonce, bound(challenge), measurement=bytes(64))
    assert known.attest(body_of(challenge, evidence), cookie).status == 401
    known.guest().attest()
    text = json.dumps(known.broker.audit_records()) + "".join(capsys.readouterr())
    for secret in (key, nonce):
        for form in (secret.hex(), base64.b64encode(secret).decode()):
            assert form not in text


def test_a_guest_with_a_device(known: Site) -> None:
    """Guests hash the runtime data of devices with the selected algorithm, SHA-512 here, as that of the machine."""
    known.broker.restart({"KBS__ATTESTATION__TEES": TEES})
    guest = known.broker.guest(tee="se", attester=known.machine, devices={"sampledevice": SampleAttester(svn="2")})
    claims = json.loads(base64.urlsafe_b64decode(guest.attest().split(".")[1] + "=="))
    assert sorted(claims["submods"]) == ["cpu0", "gpu0"]
    bound_to = base64.b64decode(claims["submods"]["gpu0"]["ear.veraison.annotated-evidence"]["report_data"])
    assert len(bound_to) == 64


def test_a_device_bound_with_another_algorithm_is_refused(known: Site) -> None:
    """The answer to one challenge has one algorithm: nobody may choose the weaker binding."""
    known.broker.restart({"KBS__ATTESTATION__TEES": TEES})
    challenge, cookie = opened(known.guest())
    device = digest(device_runtime_data(challenge.nonce, TEE_KEY.public), HashAlgorithm.SHA384)
    devices = json.dumps({"sampledevice": SampleAttester(svn="2").evidence_for(device)})
    primary = digest(primary_runtime_data(challenge.nonce, TEE_KEY.public, devices), HashAlgorithm.SHA512)
    body = json.loads(body_of(challenge, known.machine.evidence_for_challenge(challenge.nonce, primary)))
    body["tee-evidence"]["additional_evidence"] = devices
    answer = known.attest(json.dumps(body).encode(), cookie)
    assert (answer.status, answer.name) == (401, "AttestationError")
