"""Unmeasured words are only words (P-REL-9): nothing that evidence does not carry becomes a fact for a policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from kbs.client.guest import GuestClient
from tests.attacks.world import PATH, SECRET, SnpGuest, Worker, decoded_claims, edited, outcome, report_of
from tests.fakes.broker import Answer

MARK = "pl4nted"
ALGORITHMS = ("sha256", "sha384", "sha512")


def document(word: str = "true", algorithm: str = "sha256") -> str:
    return f'version = "0.1.0"\nalgorithm = "{algorithm}"\n[data]\n"policy.rego" = "default allow := {word}"\n'


def attest(worker: Worker, guest: GuestClient, change: Callable[[Any], None]) -> Answer:
    return worker.attest(edited(guest.attestation_for(guest.challenge()), change), guest.cookie)


def annotated(answer: Answer) -> Any:
    assert outcome(answer) == (200, "ok")
    return decoded_claims(answer.json["token"])["submods"]["cpu0"]["ear.veraison.annotated-evidence"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_measured_init_data_is_a_fact(worker: Worker, algorithm: str) -> None:
    text = document(algorithm=algorithm)
    guest = worker.guest(init_data=text)
    claims = annotated(attest(worker, guest, lambda _: None))
    assert claims["init_data"] == hashlib.new(algorithm, text.encode()).digest()[:32].hex()
    assert claims["init_data_claims"] == {"policy.rego": "default allow := true"}
    assert guest.get_resource(PATH) == SECRET


OTHER_BODIES: dict[str, Callable[[str], str]] = {
    "another policy": lambda text: text.replace("true", "false"),
    "a space more": lambda text: text + " ",
    "a comment": lambda text: text + f"# {MARK}\n",
    "another line end": lambda text: text.replace("\n", "\r\n"),
    "the same document, spelled otherwise": lambda text: text.replace("[data]\n", "\n[data]\n"),
    "another algorithm": lambda text: text.replace("sha256", "sha384"),
    "a member more": lambda text: f'{MARK} = "x"\n' + text,
    "an entry more": lambda text: text + f'"aa.toml" = "{MARK}"\n',
}


@pytest.mark.parametrize("name", OTHER_BODIES)
def test_another_body_than_the_measured_one(worker: Worker, name: str) -> None:
    text = document()
    guest = worker.guest(init_data=text)

    def change(body: Any) -> None:
        body["init-data"]["body"] = OTHER_BODIES[name](text)

    assert outcome(attest(worker, guest, change)) == (401, "init_data_mismatch")
    assert worker.get(cookie=guest.cookie).status == 401


def test_init_data_that_hardware_does_not_hold(worker: Worker) -> None:
    """A guest that was started without any cannot add it later, nor one that was started with it lose what it was."""
    guest = worker.guest(SnpGuest(changes={"host_data": bytes(32)}), init_data=document())
    assert outcome(attest(worker, guest, lambda _: None)) == (401, "init_data_mismatch")
    guest = worker.guest(init_data=document())
    claims = annotated(attest(worker, guest, lambda body: body.update({"init-data": None})))
    assert claims["init_data"] == hashlib.sha256(document().encode()).hexdigest()  # measured, and still told
    assert claims["init_data_claims"] is None


def flipped_host_data(body: Any) -> None:
    report_of(body)["host_data"][0] ^= 1


def test_host_data_cannot_be_rewritten(worker: Worker) -> None:
    guest = worker.guest(init_data=document())
    assert outcome(attest(worker, guest, flipped_host_data)) == (401, "signature_invalid")


def into(*path: str, **members: Any) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        for name in path:
            body = body[name]
        body.update(members)

    return change


FACTS: dict[str, Any] = {
    "ear.status": MARK,
    "submods": {"cpu0": {"ear.status": MARK}},
    "snp": {"measurement": MARK, "vmpl": MARK},
    "measurement_hex": MARK,
    "init_data_claims": {"who": MARK},
    "init_data": MARK,
    "runtime_class": MARK,
    "claims": [MARK],
    "iss": MARK,
    "tee": MARK,
}
PLACES: dict[str, Callable[[Any], None]] = {
    "attestation": into(**FACTS),
    "runtime-data": into("runtime-data", **FACTS),
    "tee-pubkey": into("runtime-data", "tee-pubkey", **FACTS),
    "tee-evidence": into("tee-evidence", **FACTS),
    "primary evidence": into("tee-evidence", "primary_evidence", **FACTS),
    "report": into("tee-evidence", "primary_evidence", "attestation_report", **FACTS),
    "report TCB": into("tee-evidence", "primary_evidence", "attestation_report", "current_tcb", vmpl=MARK, iss=MARK),
    "signature": into("tee-evidence", "primary_evidence", "attestation_report", "signature", **FACTS),
    "init-data": into("init-data", **FACTS),
}


@pytest.mark.parametrize("place", PLACES)
def test_claims_that_a_guest_adds_are_no_facts(worker: Worker, place: str) -> None:
    """Ignored or refused; in no token, and no policy sees them."""
    guest = worker.guest(init_data=document())
    honest = annotated(attest(worker, guest, lambda _: None))
    answer = attest(worker, guest, PLACES[place])
    assert MARK not in answer.body.decode()
    claims = annotated(answer)
    assert MARK not in json.dumps(decoded_claims(answer.json["token"]))
    assert {name: value for name, value in claims["snp"].items() if name != "report_id"} == {
        name: value for name, value in honest["snp"].items() if name != "report_id"
    }
    assert claims.keys() == honest.keys()
    assert guest.get_resource(PATH) == SECRET


@pytest.mark.parametrize("member", ["extra-params", "claims", "snp"])
def test_claims_in_the_request_of_a_challenge(worker: Worker, member: str) -> None:
    message = {"version": "0.4.0", "tee": "snp", "extra-params": {}, member: FACTS}
    opened = worker.call("POST", "/kbs/v0/auth", {}, json.dumps(message).encode())
    assert opened.status == 200
    assert MARK.encode() not in opened.body
    guest = worker.guest()
    body = guest.attestation_for(guest.challenge())
    headers = {"Cookie": f"kbs-session-id={guest.cookie}; tee={MARK}", "X-Claims": MARK, "X-Runtime-Class": MARK}
    answer = worker.call("POST", f"/kbs/v0/attest?runtime_class={MARK}", headers, body)
    assert MARK not in json.dumps(decoded_claims(answer.json["token"]))


def test_the_tee_named_in_the_request_is_not_the_tee_of_the_evidence(worker: Worker) -> None:
    """Sample evidence under an SNP challenge, SNP evidence under a sample challenge: neither is what it says."""
    worker.approve_sample()
    liar = worker.sample_guest(tee="snp")
    assert outcome(attest(worker, liar, lambda _: None)) == (401, "evidence_malformed")
    liar = worker.sample_guest(attester=SnpGuest())
    assert outcome(attest(worker, liar, lambda _: None)) == (401, "evidence_malformed")


def test_what_a_sample_guest_says_of_other_hardware(worker: Worker) -> None:
    """Members named like another TEE's claims stay out, also where the verifier believes what it is told."""
    worker.approve_sample()
    guest = worker.sample_guest()
    answer = attest(worker, guest, into("tee-evidence", "primary_evidence", **FACTS, vmpl=0, tdx={"quote": {}}))
    claims = annotated(answer)
    assert MARK not in json.dumps(claims)
    assert claims.keys() & {"snp", "tdx"} == set()
    assert outcome(worker.get(cookie=guest.cookie)) == (403, "policy_denied")
