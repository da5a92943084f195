"""The JSON Schemas of outputs and records say what the code says: no more, no less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs import strict_json
from kbs.admin.explain import explain
from kbs.attestation.cases import fixed_snapshot
from kbs.errors import PolicyBroken
from kbs.policy import outcome
from kbs.policy.decisions import DecisionInput, _line, extension_digests
from kbs.policy.engine import Finding, PolicyKind
from kbs.policy.lint.pods import POD_MEMBERS
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.policy.workbench import fixture_data
from tests.kbs.policy.support import NOW, REQUEST

FOLDER = policies_folder() / "schemas"
NAMES = sorted(path.name for path in FOLDER.iterdir())
SHIPPED = Shipped.load()
DATA = fixture_data()


def validator(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((FOLDER / name).read_text(encoding="utf-8")))


EVIDENCE, RESOURCE = validator("evidence-output.json"), validator("resource-output.json")
EXPLANATION = validator("explanation.json")
KEPT, VALUES = validator("kept-decision.json"), validator("reference-values.json")


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmEngine]:
    wasm = WasmEngine(lambda: NOW)
    yield wasm
    wasm.close()


def as_rules(findings: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(each).items() if name != "comparison" or value} for each in findings]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_schemas(name: str) -> None:
    schema = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert schema["title"]


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_has_something_to_show_for_every_member(name: str) -> None:
    """Those of inputs are made from the verifiers' claims, which are described in docs/verifiers."""
    if name.endswith("-input.json"):
        return
    schema = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    for member, about in schema["properties"].items():
        assert {"description", "enum", "type", "oneOf", "items"} & about.keys(), member


@pytest.mark.parametrize("name", ["evidence/cpu", "evidence/same-release", "evidence/upstream/cpu"])
def test_what_evidence_policies_say_fits(engine: WasmEngine, name: str) -> None:
    policy = SHIPPED.policy(name)
    for tee in ("snp", "tdx", "sample"):
        for values in (dict(DATA["references"][tee]), dict[str, Any]()):
            encoded = strict_json.encode(DATA["fixtures"][tee]["good"])
            snapshot = fixed_snapshot(values)
            verdict = engine.appraise(policy, encoded, snapshot)
            extensions = [
                {"name": each, "key": number, "value": value}
                for number, (each, value) in enumerate(verdict.extensions.items())
            ]
            findings = as_rules(engine.explain_appraisal(policy, encoded, snapshot))
            EVIDENCE.validate(
                {"trust_claims": dict(verdict.trust_claims), "extensions": extensions, "findings": findings}
            )


@pytest.mark.parametrize("name", ["resource/affirming", "resource/by-image", "resource/upstream/default"])
def test_what_resource_policies_say_fits(engine: WasmEngine, name: str) -> None:
    policy = SHIPPED.policy(name)
    for token in DATA["tokens"]["snp"].values():
        encoded = strict_json.encode(token)
        findings = as_rules(engine.explain_authorization(policy, encoded, REQUEST))
        RESOURCE.validate({"allow": engine.authorize(policy, encoded, REQUEST), "findings": findings})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CLAIMS = st.dictionaries(
    st.sampled_from([*sorted(outcome.TRUST_CLAIM_NAMES), "other"]), st.integers(-140, 140) | JSON, max_size=3
)
EXTENSION = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "", "ear.status", "ear.trustworthiness-vector"]) | JSON, "value": JSON},
    optional={"key": st.integers(-(2**32), 2**32) | JSON, "more": JSON},
)


def accepted(trust_claims: Any, extensions: Any) -> bool:
    try:
        outcome.evidence_verdict({"trust_claims": trust_claims, "extensions": extensions}, "")
    except PolicyBroken:
        return False
    return True


@given(CLAIMS | JSON)
def test_the_schema_takes_the_trust_claims_that_the_broker_takes(claims: Any) -> None:
    whole = isinstance(claims, dict) and any(type(value) is float and value.is_integer() for value in claims.values())
    if not whole:  # 2.0 is an integer to JSON Schema
        assert EVIDENCE.is_valid({"trust_claims": claims}) is accepted(claims, [])


@given(st.lists(EXTENSION, max_size=1) | JSON)
def test_the_schema_takes_the_extensions_that_the_broker_takes(extensions: Any) -> None:
    given_key = (
        extensions[0].get("key")
        if isinstance(extensions, list) and extensions and isinstance(extensions[0], dict)
        else 0
    )
    if not isinstance(given_key, float):
        document = {"trust_claims": {"hardware": 2}, "extensions": extensions}
        assert EVIDENCE.is_valid(document) is accepted({"hardware": 2}, extensions)


@pytest.mark.parametrize("allow", [None, "true", 1, {}, []])
def test_only_booleans_are_an_allow(allow: Any) -> None:
    assert not RESOURCE.is_valid({"allow": allow})
    assert not RESOURCE.is_valid({})


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_kept_decisions_fit(kind: PolicyKind) -> None:
    resource = kind is PolicyKind.RESOURCE
    vector = {"status": "none", "vector": {"hardware": 0}, **extension_digests({"é": [1.5, None]})}
    said: dict[str, Any] = {"allow": False, "denied_by": "path:x"} if resource else vector
    made = DecisionInput(
        "0" * 32, kind, "id", "d", b'{"a":1}', said, "" if resource else "cpu0", REQUEST if resource else None, "v1"
    )
    kept = json.loads(_line(made, NOW.isoformat()))
    KEPT.validate(kept)
    assert not KEPT.is_valid({**kept, "secret": 1})
    assert not KEPT.is_valid({**kept, "outcome": {}})


def test_a_pod_in_a_kept_request_fits() -> None:
    pod = dict.fromkeys(POD_MEMBERS, "x") | {"checked": "review"}
    for identity, fits in (
        ({}, True),
        ({"kubernetes": pod}, True),
        ({"kubernetes": {}}, False),
        ({"other": {}}, False),
    ):
        asked = {**REQUEST, "identity": identity}
        made = DecisionInput("0" * 32, PolicyKind.RESOURCE, "id", "d", b"{}", {"allow": True}, "", asked, "v1")
        assert KEPT.is_valid(json.loads(_line(made, NOW.isoformat()))) is fits
        assert validator("resource-data.json").is_valid(asked) is fits
    assert not KEPT.is_valid({"request": {"identity": {"kubernetes": {**pod, "token": "x"}}}})


def test_reference_values_and_sets() -> None:
    VALUES.validate({"reference_values": {"a": [1]}, "reference_sets": {"a": [{"a": [1]}]}})
    assert not VALUES.is_valid({"reference_sets": {"a": {"a": [1]}}})
    assert not VALUES.is_valid({"reference_sets": {"a": []}})


def test_explanations_fit() -> None:
    finding = {"submod": "cpu0", **asdict(Finding("hardware", "snp.vmpl", "x", 1, [0], False))}
    shadow = {
        "cpu0": {"policy": "d", "status": "none", "vector": {"hardware": 0}, "extensions": ["e"], "differs": True}
    }
    attested = {
        "kind": "evidence.accepted", "time": NOW.isoformat(), "tee": "snp", "references": "v1", "findings": [finding],
        "vectors": {"cpu0": {"hardware": 97}}, "policies": {"cpu0": "d" * 64}, "shadow": shadow,
    }  # fmt: skip
    found = explain("1", lambda _: [attested]).document()
    EXPLANATION.validate(found)
    assert found["causes"]
    denied = {
        "kind": "release.denied",
        "time": NOW.isoformat(),
        "plugin": "resource",
        "path": "a",
        "denied_by": "path:a",
    }
    EXPLANATION.validate(
        explain("1", lambda _: [{**denied, "reason": "policy_denied", "findings": [finding]}]).document()
    )
