"""One corpus over every policy engine: same policies, same inputs, same decisions, and never a wrong allow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbs.errors import PolicyBroken, PolicyEngineUnavailable
from kbs.policy.engine import Finding, Policy, PolicyEngine, PolicyKind
from kbs.policy.opa import OpaEngine
from kbs.policy.opa_link import OpaLink, OpaServerSettings
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import NOW, REQUEST, document, snapshot
from tests.probe_policies import probe

VECTORS = Path(__file__).parents[1] / "vectors" / "as" / "default-policy-conformance.json"
EVIDENCE = probe(PolicyKind.EVIDENCE)
RESOURCE = probe(PolicyKind.RESOURCE)
SHIPPED = Shipped.load()
CLAIMS = {"hardware": 2, "executables": -1}


@pytest.fixture(scope="module", params=["wasm", pytest.param("opa-server", marks=pytest.mark.opa)])
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    """Each engine in turn."""
    if request.param == "wasm":
        wasm = WasmEngine(lambda: NOW)
        yield wasm
        wasm.close()
    else:
        socket: Path = request.getfixturevalue("opa_socket")
        yield OpaEngine(OpaLink(OpaServerSettings(socket=socket, timeout=10)))


def test_its_name_and_whether_it_blocks_are_stated(engine: PolicyEngine) -> None:
    assert (engine.name, engine.blocks) in {("wasm", False), ("opa-server", True)}


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text())["cases"], ids=lambda case: f"{case['policy']}: {case['case']}"
)
def test_upstreams_decisions(engine: PolicyEngine, case: dict[str, Any]) -> None:
    policy = SHIPPED.policy("evidence/upstream/" + case["policy"].removeprefix("default_"))
    values = snapshot(case["reference_values"], version=case["case"])
    verdict = engine.appraise(policy, document(case["input"]), values)
    assert verdict.trust_claims == case["expected_trust_claims"]
    expected = {entry["name"]: entry["value"] for entry in case.get("expected_extensions", [])}
    assert verdict.extensions == {name: value for name, value in expected.items() if value is not None}


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [(True, True), (False, False), (None, False), ("true", False), (1, False), ({}, False), ([], False), (0, False),
     ([True], False), ({"allow": True}, False), (1.0, False), ("", False)],
)  # fmt: skip
def test_only_true_is_an_allow(engine: PolicyEngine, answer: Any, allowed: bool) -> None:
    """P-REL-7."""
    assert engine.authorize(RESOURCE, document({"answer": answer}), REQUEST) is allowed


def test_undefined_is_not_an_allow(engine: PolicyEngine) -> None:
    assert engine.authorize(RESOURCE, document({}), REQUEST) is False


@pytest.mark.parametrize("claims", [b"null", b"[]", b"true", b'"x"'])
def test_claims_that_are_no_object_are_not_an_allow(engine: PolicyEngine, claims: bytes) -> None:
    assert engine.authorize(RESOURCE, claims, REQUEST) is False


def test_a_conflict_of_rules_is_broken(engine: PolicyEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.authorize(RESOURCE, document({"answer": True, "conflict": True}), REQUEST)
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({"trust_claims": CLAIMS, "conflict": True}), snapshot())


@pytest.mark.parametrize(
    "claims",
    [None, True, "2", [], {}, {"hardware": "2"}, {"hardware": 2.5}, {"hardware": True}, {"hardware": None},
     {"hardware": 128}, {"hardware": -129}, {"unknown": 2}],
)  # fmt: skip
def test_trust_claims_of_another_form_are_broken(engine: PolicyEngine, claims: Any) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({"trust_claims": claims}), snapshot())


def test_undefined_trust_claims_are_broken(engine: PolicyEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, document({}), snapshot())


@pytest.mark.parametrize("raw", [b"", b"x", b"null", b"[]", b"1"])
def test_an_input_that_is_no_object_is_broken(engine: PolicyEngine, raw: bytes) -> None:
    with pytest.raises(PolicyBroken):
        engine.appraise(EVIDENCE, raw, snapshot())


@pytest.mark.parametrize("value", [None, False, 0, "x", [], ["a", 1], {"a": {"b": None}}])
def test_reference_values_by_name(engine: PolicyEngine, value: Any) -> None:
    asked = document({"trust_claims": CLAIMS, "ask": "some-id"})
    values = snapshot({"some-id": value, "other": 1}, version=f"one {value!r}")
    assert engine.appraise(EVIDENCE, asked, values).extensions == ({} if value is None else {"reference": value})
    assert engine.appraise(EVIDENCE, asked, snapshot({"other": 1}, version="none")).extensions == {}


def test_versions_of_reference_values_do_not_mix(engine: PolicyEngine) -> None:
    asked = document({"trust_claims": CLAIMS, "ask": "id"})
    for version in (1, 2, 3, 4, 5, 1, 5):
        values = snapshot({"id": version}, version=str(version))
        assert engine.appraise(EVIDENCE, asked, values).extensions == {"reference": version}


def test_a_look_up_by_something_else_than_a_name_is_undefined(engine: PolicyEngine) -> None:
    asked = document({"trust_claims": CLAIMS, "ask": 7})
    assert engine.appraise(EVIDENCE, asked, snapshot({"7": 1})).extensions == {}


@pytest.mark.parametrize(
    "request_data",
    [REQUEST, {"plugin": "pkcs11", "resource-path": [], "query": {}},
     {"plugin": "resource", "resource-path": ["a\"b", "\u00e9\n", "\0"], "query": {"q": "\U0001f512"}}],
)  # fmt: skip
def test_the_request_is_seen_as_data(engine: PolicyEngine, request_data: dict[str, Any]) -> None:
    seen = engine.explain_authorization(RESOURCE, document({"answer": True}), request_data)
    expected = [request_data["resource-path"], request_data["query"]]
    assert seen == (Finding("allow", "data.plugin", None, request_data["plugin"], expected, True),)


def test_requests_do_not_leak_into_each_other(engine: PolicyEngine) -> None:
    policy = SHIPPED.policy("resource/upstream/allow-all")
    assert engine.authorize(policy, b"{}", REQUEST) is True
    assert engine.authorize(policy, b"{}", {**REQUEST, "plugin": "other"}) is False
    assert engine.authorize(policy, b"{}", {"resource-path": [], "query": {}}) is False
    assert engine.authorize(policy, b"{}", REQUEST) is True


def test_a_pod_is_seen_as_data_and_only_where_one_was_verified(engine: PolicyEngine) -> None:
    """And not where a token's claims have one."""
    policy = SHIPPED.policy("resource/by-pod-identity")
    pod = {"cluster": "east", "namespace": "payments", "serviceaccount": "api", "checked": "review"}
    appraised = {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"snp": {}}}
    claims = {"submods": {"cpu0": appraised}, "identity": {"kubernetes": pod}}
    asked = {"plugin": "resource", "resource-path": ["east", "payments.api", "key"], "query": {}}
    for identity, allowed in (
        ({"kubernetes": pod}, True),
        ({}, False),
        ({"kubernetes": {**pod, "cluster": "w"}}, False),
    ):
        assert engine.authorize(policy, document(claims), {**asked, "identity": identity}) is allowed
        assert engine.authorize(policy, document(claims), asked) is False
        assert engine.authorize(policy, document({}), {**asked, "identity": identity}) is False
    wrong = [each for each in engine.explain_authorization(policy, document(claims), asked) if not each.ok]
    assert "data.identity.kubernetes.cluster" in {each.claim for each in wrong}
    assert {each.seen for each in wrong} == {None}


def test_no_findings_is_no_error(engine: PolicyEngine) -> None:
    assert engine.explain_appraisal(EVIDENCE, document({}), snapshot()) == ()
    assert engine.explain_authorization(SHIPPED.policy("resource/upstream/deny-all"), b"{}", REQUEST) == ()


def test_the_other_kind_of_policy_is_refused(engine: PolicyEngine) -> None:
    with pytest.raises(PolicyBroken):
        engine.authorize(EVIDENCE, document({"answer": True}), REQUEST)
    with pytest.raises(PolicyBroken):
        engine.appraise(RESOURCE, document({"trust_claims": CLAIMS}), snapshot())


@pytest.mark.parametrize("text", ["x" * 100_000, "".join(map(chr, range(1, 0x250))), '\U0001f512\\"\0'])
def test_strings_arrive_exactly(engine: PolicyEngine, text: str) -> None:
    asked = document({"trust_claims": CLAIMS, "extensions": [{"name": "e", "key": 1, "value": text}]})
    assert engine.appraise(EVIDENCE, asked, snapshot()).extensions == {"e": text}


def test_a_policy_that_neither_compiles_nor_was_compiled_never_allows(engine: PolicyEngine) -> None:
    text = "package policy\nallow if {"
    policy = Policy(PolicyKind.RESOURCE, text, hashlib.sha256(text.encode()).hexdigest(), b"\0asm", "test")
    with pytest.raises((PolicyBroken, PolicyEngineUnavailable)):
        engine.authorize(policy, document({"answer": True}), REQUEST)
    assert engine.authorize(dataclasses.replace(RESOURCE), document({"answer": True}), REQUEST) is True


RELEASES: list[dict[str, Any]] = [
    {"mr_td": ["aa"], "rtmr_1": ["b1"], "rtmr_2": ["b2"], "xfam": ["e7"], "release": "A"},
    {"mr_td": ["aa"], "rtmr_1": ["c1"], "rtmr_2": ["c2"], "xfam": ["e7"], "release": "B"},
]


def guest(rtmr_1: str, rtmr_2: str) -> bytes:
    body = {"mr_td": "aa", "rtmr_1": rtmr_1, "rtmr_2": rtmr_2, "xfam": "e7", "td_attributes": "00"}
    header = {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"}
    attributes = {"debug": False, "migratable": False, "septve_disable": True}
    claims = {"quote": {"header": header, "body": body}, "td_attributes": attributes, "tcb_status": "UpToDate"}
    fresh = {"binding": "checked", "revocation": "checked", "collateral_expiration_status": "0"}
    return document({"tdx": {**claims, **fresh}})


@pytest.mark.parametrize(
    ("rtmr_1", "rtmr_2", "known", "executables"),
    [("b1", "b2", "AB", 4), ("c1", "c2", "AB", 4), ("b1", "c2", "AB", 33), ("b1", "b2", "B", 33), ("b1", "b2", "", 33)],
)
def test_compound_sets(engine: PolicyEngine, rtmr_1: str, rtmr_2: str, known: str, executables: int) -> None:
    sets = [each for each in RELEASES if each["release"] in known]
    policy = SHIPPED.policy("evidence/same-release")
    # under the same version as the values alone: what is loaded is told by what it is
    for values in (snapshot({}, "v", sets), snapshot({}, "v"), snapshot({}, "v", sets)):
        verdict = engine.appraise(policy, guest(rtmr_1, rtmr_2), values)
        assert verdict.trust_claims["executables"] == (executables if values.encoded_sets != b"{}" else 33)


def test_findings_name_the_closest_set(engine: PolicyEngine) -> None:
    policy = SHIPPED.policy("evidence/same-release")
    found = engine.explain_appraisal(policy, guest("b1", "c2"), snapshot({}, sets=RELEASES))
    wrong = [finding for finding in found if not finding.ok]
    assert [(each.claim, each.seen, each.expected) for each in wrong if each.claim != "tdx[one set]"] == [
        ("tdx.quote.body.rtmr_2[rtmr_2 of A]", "c2", ["b2"])
    ]
    [mixed] = [each for each in wrong if each.claim == "tdx[one set]"]
    assert mixed.seen == {"mr_td": ["A", "B"], "rtmr_1": ["A"], "rtmr_2": ["B"], "xfam": ["A", "B"]}
    assert mixed.expected == {name: ["A"] for name in mixed.seen}
