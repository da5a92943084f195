"""Attestation Result ⇄ EAR claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbs import strict_json
from kbs.attestation.ear import (
    DEVICE_EVIDENCE_POINTER,
    INIT_DATA_CLAIMS_POINTER,
    NONCE_POINTER,
    TEE_KEY_POINTER,
    EarSettings,
    ear_claims,
    ear_json,
    find,
    statuses,
    tee_key,
)
from kbs.attestation.model import Appraisal, AttestationResult, Tier
from kbs.errors import PolicyBroken, TokenRejected
from kbs.protocol.tee import Tee

IAT, EXP = 1767225600, 1767225900


def _appraisal(submod: str, expected: Any, tee: Tee = Tee.SAMPLE) -> Appraisal:
    """The result that must give one submodule of a worked example."""
    extensions = {name: value for name, value in expected.items() if name == "ear.trustee.identifiers"}
    return Appraisal(
        submod,
        tee,
        Tier(expected["ear.status"]),
        expected["ear.trustworthiness-vector"],
        expected["ear.appraisal-policy-id"],
        "00" * 32,
        "default_cpu (test)",
        expected["ear.veraison.annotated-evidence"],
        strict_json.encode(expected["ear.veraison.annotated-evidence"]),
        extensions,
    )


def _written(*appraisals: Appraisal, settings: EarSettings | None = None) -> dict[str, Any]:
    return ear_claims(
        AttestationResult(appraisals, "v1"),
        settings or EarSettings(),
        issued_at=IAT,
        expires=EXP,
        issuer="CoCo-Attestation-Service",
        token_id="t",
    )


@pytest.fixture
def payloads(vectors: Path) -> list[Any]:
    cases = json.loads((vectors / "as" / "appraisal.json").read_text())
    composite = cases["composite_sample_plus_sampledevice"]
    return [
        cases["sample_flow_affirming"]["12_token_payload"],
        cases["sample_flow_without_reference_values"]["token_payload"],
        composite["token_payload"],
        composite["token_payload_verbose_token_false"],
    ]


def test_payloads_are_the_reference_ones_with_nbf_and_jti(payloads: list[Any]) -> None:
    assert len(payloads) == 4
    for payload in payloads:
        found = _written(*(_appraisal(name, submod) for name, submod in payload["submods"].items()))
        wanted = {**payload, "nbf": IAT, "jti": "t"}
        assert json.dumps(found) == json.dumps(wanted)  # order too


def test_with_evidence_that_was_encoded_before_it_is_the_same_octet_for_octet(payloads: list[Any]) -> None:
    for payload in payloads:
        appraisals = [_appraisal(name, submod) for name, submod in payload["submods"].items()]
        claims = _written(*appraisals)
        assert ear_json(claims, AttestationResult(tuple(appraisals), "v1")) == strict_json.encode(claims)


def test_what_was_written_is_read_back(payloads: list[Any]) -> None:
    affirming, _, composite, silent = payloads
    runtime = affirming["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]
    assert tee_key(affirming) == runtime["tee-pubkey"]
    assert find(affirming, TEE_KEY_POINTER) == runtime["tee-pubkey"]
    assert find(affirming, NONCE_POINTER) == runtime["nonce"]
    assert find(affirming, DEVICE_EVIDENCE_POINTER) == ""
    assert find(affirming, INIT_DATA_CLAIMS_POINTER + "/cdh.toml/kbc/name") == "cc_kbc"
    assert "sampledevice" in str(find(composite, DEVICE_EVIDENCE_POINTER))
    assert find(silent, DEVICE_EVIDENCE_POINTER) is None
    assert statuses(composite) == {"cpu0": Tier.AFFIRMING, "gpu0": Tier.CONTRAINDICATED}


def test_settings_rename_what_may_be_renamed(payloads: list[Any]) -> None:
    settings = EarSettings("tag:example,2026:x", "example", "1")
    found = ear_claims(AttestationResult((), ""), settings, issued_at=1, expires=2, issuer="https://kbs", token_id="x")
    assert found == {
        "eat_profile": "tag:example,2026:x",
        "iat": 1,
        "ear.verifier-id": {"developer": "example", "build": "1"},
        "submods": {},
        "exp": 2,
        "iss": "https://kbs",
        "nbf": 1,
        "jti": "x",
    }


@pytest.mark.parametrize(
    "name",
    ["ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", "ear.veraison.annotated-evidence"],
)
def test_an_extension_cannot_replace_the_verdict(name: str) -> None:
    appraisal = Appraisal(
        "cpu0", Tee.SNP, Tier.WARNING, {"hardware": 32}, "default", "", "", {}, b"{}", {name: "affirming"}
    )
    with pytest.raises(PolicyBroken):
        _written(appraisal)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", {"a/b": [10, {"~": 1}], "": 2, "0": 3}),
        ("/a~1b/0", 10),
        ("/a~1b/1/~0", 1),
        ("/", 2),
        ("/0", 3),
        ("/a~1b/2", None),
        ("/a~1b/-", None),
        ("/a~1b/00", None),
        ("/a~1b/-1", None),
        ("/a~1b/\u0660", None),
        ("/a~1b/99999999999999999999", None),
        ("/0/x", None),
        ("/absent/x", None),
    ],
)
def test_pointers(pointer: str, value: Any) -> None:
    assert find({"a/b": [10, {"~": 1}], "": 2, "0": 3}, pointer) == value


def test_a_pointer_starts_with_a_slash() -> None:
    with pytest.raises(ValueError, match="pointer"):
        find({}, "tee-pubkey")


def test_configured_pointers_come_first() -> None:
    claims = {"own": {"kty": "A"}, "tee-pubkey": {"kty": "B"}, "customized_claims": {"runtime_data": "no object"}}
    assert tee_key(claims, ["/own"]) == {"kty": "A"}
    assert tee_key(claims) == {"kty": "B"}


@pytest.mark.parametrize("claims", [{}, {"tee-pubkey": "text"}, {"tee-pubkey": None}, {"submods": {"cpu1": {}}}])
def test_a_token_without_a_key_is_refused(claims: Any) -> None:
    with pytest.raises(TokenRejected):
        tee_key(claims)


@pytest.mark.parametrize(
    "claims",
    [{}, {"submods": {}}, {"submods": []}, {"submods": {"cpu0": {}}}, {"submods": {"cpu0": {"ear.status": "fine"}}},
     {"submods": {"cpu0": None}}, {"submods": {"cpu0": {"ear.status": ["affirming"]}}}],
)  # fmt: skip
def test_a_token_without_statuses_is_refused(claims: Any) -> None:
    with pytest.raises(TokenRejected):
        statuses(claims)
