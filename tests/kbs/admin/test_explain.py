"""Explanations from records that are whole, cut, or not all there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kbs.admin.explain import Explanation, explain
from kbs.audit.events import EvidenceAccepted, ReleaseDenied
from kbs.audit.lines import encode_event
from kbs.errors import ResourceNotFound

APPRAISAL, RELEASE = "a" * 32, "b" * 32
VECTORS = {"cpu0": {"executables": 33, "hardware": 2}}


def _finding(**members: Any) -> dict[str, Any]:
    plain = {"submod": "cpu0", "rule": "executables", "claim": "sample.x", "reference": "r", "ok": False}
    return {**plain, "seen": "a", "expected": None, **members}


def _accepted(**members: Any) -> EvidenceAccepted:
    plain: dict[str, Any] = {
        "decision": APPRAISAL,
        "tee": "sample",
        "status": {"cpu0": "warning"},
        "vectors": VECTORS,
        "policies": {"cpu0": "d" * 64},
        "policy_names": {"cpu0": "shipped:evidence/cpu"},
        "references": "7",
        "findings": (_finding(),),
        "claims_digest": "e" * 64,
        "init_data": None,
        "key": "t",
        "peer": None,
    }
    return EvidenceAccepted(**{**plain, **members})


def _denied(**members: Any) -> ReleaseDenied:
    plain: dict[str, Any] = {
        "decision": RELEASE,
        "plugin": "resource",
        "path": "a/b/c",
        "reason": "policy",
        "detail": "no",
    }
    return ReleaseDenied(**{**plain, "attestation": APPRAISAL, "policy": "f" * 64, **members})


def _explained(decision: str, *events: EvidenceAccepted | ReleaseDenied) -> Explanation:
    """From the lines as they stand in the log."""
    records = [{"time": "2026-06-15T12:00:00Z", **json.loads(b"{" + encode_event(event) + b"}")} for event in events]

    def find(asked: str) -> Sequence[Mapping[str, Any]]:
        return [record for record in records if record["decision"] == asked]

    return explain(decision, find)


def _mended(seen: Any, expected: Any, **members: Any) -> Any:
    """The value that is proposed, or None."""
    (cause,) = _explained(APPRAISAL, _accepted(findings=(_finding(seen=seen, expected=expected, **members),))).causes
    if cause.mend is None:
        return None
    words = shlex.split(cause.mend)
    assert words[:4] == ["kbs", "reference", "set", "r"]
    return json.loads(words[4])


@pytest.mark.parametrize(
    ("seen", "expected", "wanted"),
    [
        ("a", None, ["a"]),
        (3, None, [3]),
        ("a", ["b"], ["b", "a"]),
        (3, 4, 3),  # a minimum or a single value
        (False, True, False),
        (1, [True], [True, 1]),  # what Python takes for the same, JSON does not
        (3, [3], 3),  # it is in the list and did not do: the policy wants a single value
        (3, 3, [3]),  # and here a list
        (["x", "y"], "z", None),  # which of the two?
        (["x", "y"], None, None),
    ],
)
def test_the_value_proposed_has_the_form_that_the_policy_reads(seen: Any, expected: Any, wanted: Any) -> None:
    assert _mended(seen, expected) == wanted
    assert type(_mended(seen, expected)) is type(wanted)


@pytest.mark.parametrize(
    ("comparison", "seen", "expected", "wanted"),
    [
        ("in", "a", None, ["a"]),
        ("in", "a", ["b"], ["b", "a"]),
        ("in", "a", "b", ["b", "a"]),  # a single value, which this comparison never takes
        ("in", ["x"], None, [["x"]]),  # a claim that is a list, such as CCA's measurements
        ("in", ["x"], [["y"]], [["y"], ["x"]]),
        ("in", ["x"], ["x"], ["x", ["x"]]),
        ("in", [{"a": 1}], [[{"a": 2}]], [[{"a": 2}], [{"a": 1}]]),
        ("equals", 3, None, 3),
        ("equals", ["x"], None, ["x"]),
        ("equals", "a", ["a"], "a"),
        ("at least", 3, 4, 3),
        ("at least", 3, None, 3),
        ("at least", "3", 4, None),
        ("at most", 40, 30, 40),
        ("at most", True, 0, None),
        ("all in", ["x", "y"], None, ["x", "y"]),
        ("all in", ["x", "y", "x"], ["y", "z"], ["y", "z", "x"]),
        ("all in", [], ["y"], None),
        ("all in", ["x", None], ["y"], None),
        ("all in", "x", ["y"], None),
        ("contains", [None, "x", "y"], "z", "x"),
        ("contains", [], "z", None),
        ("contains", "x", "z", None),
    ],
)
def test_the_value_proposed_fits_the_comparison(comparison: str, seen: Any, expected: Any, wanted: Any) -> None:
    assert _mended(seen, expected, comparison=comparison) == wanted
    assert type(_mended(seen, expected, comparison=comparison)) is type(wanted)


def test_findings_too_long_for_their_record_are_named() -> None:
    long = _accepted(findings=tuple(_finding(seen="x" * 900) for _ in range(100)))
    found = _explained(RELEASE, long, _denied())
    assert found.cut == ("findings",)
    assert found.document()["cut"] == ["findings"]
    assert found.causes == ()
    assert found.rules["evidence policy of cpu0"] == "shipped:evidence/cpu sha256:" + "d" * 16
    own = _denied(findings=tuple(_finding(seen="x" * 900) for _ in range(100)))
    assert _explained(RELEASE, own, _accepted()).cut == ("findings",)


def test_every_structured_member_may_be_cut() -> None:
    many = {f"gpu{index}": "d" * 64 for index in range(900)}
    long = _accepted(
        findings=tuple(_finding(seen="x" * 900) for _ in range(100)),
        vectors={name: {f"claim-{number}": 2 for number in range(8)} for name in many},
        policies=many,
        policy_names=dict.fromkeys(many, "x" * 100),
        status=many,
    )
    found = _explained(APPRAISAL, long)
    assert set(found.cut) == {"findings", "vectors", "policies", "policy_names", "status"}
    assert found.rules == {"reference values": "7"}


def test_without_vectors_every_failed_comparison_is_shown() -> None:
    vectors = {f"gpu{index}": {"hardware": 2, "executables": 2, "configuration": 2} for index in range(1500)}
    findings = (_finding(submod="gpu0", rule="hardware"), _finding(submod="gpu0", rule="executables", ok=True))
    found = _explained(APPRAISAL, _accepted(vectors=vectors, findings=findings))
    assert found.cut == ("vectors",)
    assert [cause.rule for cause in found.causes] == ["hardware"]


def test_only_claims_outside_the_affirming_band_are_causes() -> None:
    findings = (_finding(rule="hardware"), _finding(), _finding(ok=True))
    assert [cause.rule for cause in _explained(APPRAISAL, _accepted(findings=findings)).causes] == ["executables"]


def test_an_attestation_of_another_issuer_is_not_in_this_log() -> None:
    found = _explained(RELEASE, _denied(attestation="id-of-somebody-else", findings=(_finding(rule="allow"),)))
    assert (found.outcome, found.attestation) == ("denied", "id-of-somebody-else")
    assert [cause.where for cause in found.causes] == ["resource policy"]


def test_a_release_without_a_path_is_explained_too() -> None:
    assert _explained(RELEASE, _denied(attestation=None, path="")).subject == "resource/"


def test_an_unknown_decision_is_not_found() -> None:
    with pytest.raises(ResourceNotFound, match="no decision"):
        _explained("c" * 32, _accepted())
