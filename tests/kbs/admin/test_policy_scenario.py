"""Documents of the playground, as anybody may send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.admin.policy_scenario import ANY_REQUEST, LIMITS, Scenario, read_scenario
from kbs.errors import KbsError, MalformedMessage, PayloadTooLarge
from kbs.policy.engine import PolicyKind

WHOLE = {"kbs-policy-scenario": 1, "kind": "evidence", "policy": "package policy", "input": {"a": 1}}
SMALL = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-5, 5) | st.none(), max_size=4)


@given(st.text(st.characters(exclude_categories=["Cs"])), SMALL, SMALL, st.sampled_from(PolicyKind))
def test_what_is_written_reads_back(policy: str, claims: Any, values: Any, kind: PolicyKind) -> None:
    scenario = Scenario(kind, policy, claims, values, sets=(values, claims))
    assert read_scenario(scenario.encoded()) == scenario


def test_values_and_request_may_be_left_out() -> None:
    read = read_scenario(json.dumps(WHOLE).encode())
    assert (read.values, read.request, read.sets) == ({}, dict(ANY_REQUEST), ())
    asked = read_scenario(json.dumps({**WHOLE, "request": {"resource-path": ["a"]}}).encode())
    assert asked.request == {**ANY_REQUEST, "resource-path": ["a"]}
    pod = {"identity": {"kubernetes": {"pod": "a"}}}
    assert read_scenario(json.dumps({**WHOLE, "request": pod}).encode()).request == {**ANY_REQUEST, **pod}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kbs-policy-scenario": 2}, "kbs-policy-scenario is not 1"),
        ({"kbs-policy-scenario": None}, "kbs-policy-scenario is not 1"),
        ({"kind": "x"}, "member kind"),
        ({"kind": None}, "member kind"),
        ({"policy": 1}, "member policy"),
        ({"input": []}, "member input"),
        ({"input": None}, "member input"),
        ({"reference_values": 1}, "member reference_values"),
        ({"reference_sets": {}}, "list of objects"),
        ({"reference_sets": [[]]}, "list of objects"),
        ({"reference_sets": None}, "list of objects"),
        ({"request": 1}, "member request"),
        ({"request": {"x": 1}}, "unknown member"),
        ({"request": {"query": 1}}, "plugin and query"),
        ({"request": {"plugin": 1}}, "plugin and query"),
        ({"request": {"resource-path": [1]}}, "list of texts"),
        ({"request": {"identity": []}}, "member identity"),
        ({"request": {"identity": {"other": {}}}}, "member identity"),
        ({"request": {"identity": {"kubernetes": {"pod": 1}}}}, "member identity"),
        ({"request": {"identity": {"kubernetes": {"pods": "a"}}}}, "unknown member 'pods'"),
        ({"other": 1}, "unknown member 'other'"),
    ],
    ids=range(21),
)
def test_another_form_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedMessage, match=words):
        read_scenario(json.dumps({**WHOLE, **changes}).encode())


@given(st.binary(max_size=200))
def test_octets_are_refused(raw: bytes) -> None:
    with pytest.raises(KbsError):
        read_scenario(raw)


def test_too_large_a_document_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        read_scenario(b" " * (LIMITS.size + 1))


def test_sets_that_would_grow_are_refused() -> None:
    """A policy finds each set under every name in it: 3 000 names of 1 000 octets would be 9 MB."""
    names = {f"{number:04}": "x" for number in range(3000)}
    names["0000"] = "x" * 1000
    assert read_scenario(json.dumps({**WHOLE, "reference_sets": [dict([*names.items()][:500])]}).encode()).sets
    with pytest.raises(PayloadTooLarge, match="compound sets"):
        read_scenario(json.dumps({**WHOLE, "reference_sets": [names]}).encode())
