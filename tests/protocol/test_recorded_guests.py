"""Recorded guests against a whole broker that asks with the nonce of the recording: accepted, and answers that open."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kbs.protocol import rcar
from kbs.protocol.jwe import open_sealed
from tests.fakes.broker import BrokerUnderTest, session
from tests.protocol.expect import expect

VECTORS = Path(__file__).parents[1] / "vectors"
GUEST = json.loads((VECTORS / "rcar/guest-rcar-vectors.json").read_text())
CASES = json.loads((VECTORS / "kbs/runtime-data-vectors.json").read_text())["cases"]
RECEIVER: Any = load_pem_private_key(GUEST["jwe"][0]["receiver_private_key_pem_pkcs8"].encode(), None)


@pytest.fixture
def asking(standing: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch) -> BrokerUnderTest:
    """A broker whose nonce is that of all recordings."""
    monkeypatch.setattr(rcar, "new_nonce", lambda _: GUEST["nonce"])
    return standing


def report(sha384: str) -> dict[str, str]:
    return {"svn": "1", "report_data": base64.b64encode(bytes.fromhex(sha384)).decode()}


def current(additional: str, evidence: Any) -> dict[str, Any]:
    return {
        "init-data": None,
        "runtime-data": {"nonce": GUEST["nonce"], "tee-pubkey": GUEST["tee_pubkey"]},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
    }


def recordings() -> dict[str, tuple[str, Any]]:
    """Name → protocol version and body."""
    alone, with_device = GUEST["primary_report_data"]
    old = next(case for case in GUEST["legacy_report_data"] if case["version"] == "0.2.0")
    return {
        "0.4.0 alone": ("0.4.0", current("", GUEST["sample_evidence_for_sha384_and_no_devices"])),
        "0.4.0 alone, by its digest": ("0.4.0", current("", report(alone["sha384"]))),
        "0.4.0 with a device": ("0.4.0", current(with_device["additional_evidence"], report(with_device["sha384"]))),
        "0.2.0": ("0.2.0", {"tee-pubkey": old["tee_pubkey"], "tee-evidence": report(old["sha384"])}),
    }


def attest(broker: BrokerUnderTest, version: str, body: Any) -> tuple[Any, str]:
    first = json.dumps({"version": version, "tee": "sample", "extra-params": ""}).encode()
    challenge = broker.call("POST", "/kbs/v0/auth", body=first)
    assert challenge.json == {"nonce": GUEST["nonce"], "extra-params": ""}
    cookie = challenge.cookie
    return broker.call("POST", "/kbs/v0/attest", session(cookie), json.dumps(body).encode()), cookie


@pytest.mark.parametrize("name", recordings())
def test_a_recorded_guest_attests_and_opens_its_answer(asking: BrokerUnderTest, name: str) -> None:
    answer, cookie = attest(asking, *recordings()[name])
    assert answer.status == 200, answer.body
    sealed = asking.call("GET", "/kbs/v0/resource/default/key/1", session(cookie))
    assert sealed.status == 200, sealed.body
    assert open_sealed(RECEIVER, sealed.body) == b"a secret"


@pytest.mark.parametrize("body_of", recordings())
@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.2.0", "0.4.0"])
def test_a_recording_answers_for_its_own_version_alone(asking: BrokerUnderTest, version: str, body_of: str) -> None:
    own, body = recordings()[body_of]
    answer, _ = attest(asking, version, body)
    if version == own:
        assert answer.status == 200
    else:
        expect(answer, 400, "AttestationError")


@pytest.mark.parametrize("release", [case["release"] for case in GUEST["legacy_report_data"][:3]])
def test_recorded_keys_that_are_no_keys_are_refused(asking: BrokerUnderTest, release: str) -> None:
    """The moduli of the oldest recordings are even; their digests are compared in tests/kbs/protocol."""
    case = next(case for case in GUEST["legacy_report_data"] if case["release"] == release)
    evidence: Any = report(case["sha384"])
    if case["version"] == "0.1.0":
        evidence = json.dumps(evidence)
    answer, _ = attest(asking, case["version"], {"tee-pubkey": case["tee_pubkey"], "tee-evidence": evidence})
    expect(answer, 400, "AttestationError")
    assert "the modulus is even" in answer.json["detail"]


def test_the_recorded_body_of_the_protocol_vectors(asking: BrokerUnderTest) -> None:
    (case,) = [case for case in CASES if "attest_body" in case]
    assert case["nonce"] == GUEST["nonce"]
    answer, _ = attest(asking, "0.4.0", case["attest_body"])
    assert answer.status == 200, answer.body
