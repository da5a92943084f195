"""What a policy's answer means, form by form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.model import TRUST_CLAIMS
from kbs.errors import PolicyBroken
from kbs.policy import outcome
from kbs.policy.engine import Finding

TEXT = "package policy\ntrust_claims := {}\n"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_the_claims_are_those_of_the_vocabulary() -> None:
    assert set(TRUST_CLAIMS) == outcome.TRUST_CLAIM_NAMES


@pytest.mark.parametrize(
    "claims",
    [
        None,
        [],
        "affirming",
        2,
        {},
        {"hardware": "2"},
        {"hardware": 2.0},
        {"hardware": True},
        {"hardware": None},
        {"hardware": 128},
        {"hardware": -129},
        {"hardware": 258},
        {"firmware": 2},
        {"hardware": 2, "Hardware": 2},
    ],
)
def test_trust_claims_of_another_form_are_broken(claims: Any) -> None:
    with pytest.raises(PolicyBroken):
        outcome.evidence_verdict({"trust_claims": claims}, TEXT)


def test_extreme_trust_claims_and_a_subset_are_kept() -> None:
    verdict = outcome.evidence_verdict({"trust_claims": {"hardware": -128, "executables": 127}}, TEXT)
    assert verdict.trust_claims == {"hardware": -128, "executables": 127}


def test_an_undefined_rule_is_broken_and_an_absent_one_asserts_nothing() -> None:
    with pytest.raises(PolicyBroken):
        outcome.evidence_verdict({}, TEXT)
    verdict = outcome.evidence_verdict({}, "package policy\nallow := true\n")
    assert verdict.trust_claims == dict.fromkeys(outcome.TRUST_CLAIM_NAMES, 0)


def extension(name: Any = "a", key: Any = 1, value: Any = 1) -> dict[str, Any]:
    return {"name": name, "key": key, "value": value}


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        {},
        "x",
        [1],
        [{"name": "a", "key": 1}],
        [{"name": "a", "value": 1}],
        [extension(name="")],
        [extension(name=1)],
        [extension(key="1")],
        [extension(key=True)],
        [extension(key=2**31)],
        [extension(key=-(2**31) - 1)],
        [extension(), extension(key=2)],
        [extension(), extension(name="b")],
        [extension(value=None), extension(key=2)],
        [extension(name="ear.status", value="affirming")],
        [extension(name="ear.trustworthiness-vector")],
    ],
)
def test_extensions_of_another_form_are_broken(extensions: Any) -> None:
    with pytest.raises(PolicyBroken):
        outcome.evidence_verdict({"trust_claims": {"hardware": 2}, "extensions": extensions}, TEXT)


def test_a_null_extension_is_left_out() -> None:
    answer = {"trust_claims": {"hardware": 2}, "extensions": [extension(value=None), extension("b", -18, [1])]}
    assert outcome.evidence_verdict(answer, TEXT).extensions == {"b": [1]}


@pytest.mark.parametrize("answer", [None, [], 1, "x", {"other": 1}, {"trust_claims": {"hardware": 2}, "other": 1}])
def test_an_answer_that_is_not_the_wrappers_is_broken(answer: Any) -> None:
    with pytest.raises(PolicyBroken):
        outcome.evidence_verdict(answer, TEXT)
    with pytest.raises(PolicyBroken):
        outcome.allows(answer)


@given(JSON)
def test_only_the_literal_true_allows(value: Any) -> None:
    assert outcome.allows({"allow": value}) is (value is True)


def test_undefined_is_a_no() -> None:
    assert outcome.allows({}) is False


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'[{"result":1},{"result":2}]',
        b'[{"other":1}]',
        b'[{"result":1,"x":2}]',
        b"[1]",
        b"x",
    ],
)
def test_result_sets_of_another_form_are_broken(raw: bytes) -> None:
    with pytest.raises(PolicyBroken):
        outcome.decode(raw)


def test_the_one_result_is_taken() -> None:
    assert outcome.decode(b'[{"result":{"allow":true}}]') == {"allow": True}


@given(JSON)
def test_findings_never_raise(value: Any) -> None:
    assert isinstance(outcome.findings({"findings": value}), tuple)
    assert isinstance(outcome.findings({"findings": [value]}), tuple)
    assert outcome.findings(value) == () or isinstance(value, dict)


def test_findings_are_read_and_malformed_ones_left_out() -> None:
    good = {"rule": "hardware", "claim": "snp.svn", "reference": "svn", "seen": 1, "expected": [2], "ok": False}
    bad = [{**good, "ok": "no"}, {**good, "rule": 1}, {**good, "reference": 1}, 3]
    assert outcome.findings({"findings": [*bad, good]}) == (Finding("hardware", "snp.svn", "svn", 1, [2], False),)


def test_the_resource_input_holds_the_claims_as_they_are_and_only_known_request_members() -> None:
    made = outcome.resource_input(
        b'{"a":1}', {"plugin": "p", "resource-path": ["\u00e9"], "query": {}, "method": "GET"}
    )
    assert json.loads(made) == {
        "claims": {"a": 1},
        "request": {"plugin": "p", "resource-path": ["\u00e9"], "query": {}},
    }
