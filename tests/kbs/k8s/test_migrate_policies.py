"""Policies of an old installation: rewritten, tried out, and refused where they give everybody everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.clock import system_clock
from kbs.k8s.migrate import Question, Verdict, migrate
from kbs.k8s.migrate.output import files_of
from kbs.k8s.migrate.policies import Found, PolicyJudge
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.wasm import WasmEngine
from rvps.model import Snapshot
from tests.fakes import trustee_installation as trustee

pytestmark = pytest.mark.opa
PATHS = ["default/database/key", "default/key/1"]
NOT_SAMPLE = """package policy
default allow := false
allow if {
  data.plugin == "resource"
  not input.submods.cpu0["ear.veraison.annotated-evidence"].sample
}
"""
ONE_PATH = """package policy
default allow := false
allow if data["resource-path"] == ["default", "database", "key"]
"""
ANY_EVIDENCE = """package policy
default allow := false
allow if input.submods.cpu0["ear.veraison.annotated-evidence"].snp
"""
STRICT = 'package policy\ndefault allow := false\nallow if input.submods.cpu0["ear.status"] == "affirming"\n'
EVIDENCE = """package policy
default hardware := 97
default configuration := 36
default executables := 33
executables := 3 if input.snp.measurement in data.reference.snp_launch_measurement
trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
"""


@pytest.fixture(scope="module")
def judge(opa: Path) -> Iterator[PolicyJudge]:
    engine = WasmEngine(system_clock)
    yield PolicyJudge(Compiler(opa, lambda: 0), engine, Snapshot("", {}, b"{}", None))
    engine.close()


def found(text: str, kind: PolicyKind = PolicyKind.RESOURCE) -> Found:
    return Found("ConfigMap/p", "policy.rego", kind, "resource-policy", text)


@pytest.mark.parametrize(
    ("text", "verdict", "says"),
    [
        (trustee.PERMISSIVE, Verdict.REFUSED, "a guest whose token says nothing"),
        (NOT_SAMPLE, Verdict.REFUSED, "a guest whose token says nothing"),
        (ONE_PATH, Verdict.REFUSED, "it releases default/database/key"),
        (
            ANY_EVIDENCE,
            Verdict.REFUSED,
            "a guest whose evidence was refuted",
        ),
        ("package policy\nallow if {", Verdict.BY_HAND, "does not accept it"),
        ("package other\ndefault allow := false\n", Verdict.BY_HAND, "does not accept it"),
        (STRICT, Verdict.OURS, "compiled and tried out"),
        (trustee.OLD_REGO, Verdict.OURS, "`if` before bodies"),
    ],
    ids=["permissive", "not-sample", "one-path", "any-evidence", "syntax", "package", "strict", "before-1.0"],
)
def test_resource_policies(judge: PolicyJudge, text: str, verdict: Verdict, says: str) -> None:
    judged = judge(found(text), PATHS)
    assert (judged.verdict, says in judged.why) == (verdict, True), judged
    assert (judged.text is not None) == (verdict is Verdict.OURS)


def test_evidence_policies(judge: PolicyJudge) -> None:
    judged = judge(found(EVIDENCE, PolicyKind.EVIDENCE), [])
    assert judged.text is not None
    assert 'registered("snp_launch_measurement")' in judged.text
    lenient = judge(found(EVIDENCE.replace("hardware := 97", "hardware := 2"), PolicyKind.EVIDENCE), [])
    assert (lenient.verdict, lenient.text) == (Verdict.REFUSED, None)
    assert "affirms hardware with no evidence at all" in lenient.why


def test_a_refused_policy_is_kept_beside_and_not_in_force(judge: PolicyJudge) -> None:
    question = Question([], trustee.by_operator(policy=trustee.PERMISSIVE), None, (), lambda _: None)
    draft = migrate(question, judge, datetime(2026, 11, 1, tzinfo=UTC))
    files = files_of(draft, "../k8s")
    assert files["not-taken/resource-policy.rego"].decode() == trustee.PERMISSIVE
    assert not any(name.startswith("objects/policies") for name in files)
    assert "BrokerPolicy" not in {each["kind"] for each in draft.objects}
    assert any("strict defaults" in each for each in draft.steps)


def test_a_policy_that_is_taken_over_is_named_by_its_object(judge: PolicyJudge) -> None:
    question = Question([], trustee.by_operator(), None, (), lambda _: None)
    draft = migrate(question, judge, datetime(2026, 11, 1, tzinfo=UTC))
    files = files_of(draft, "../k8s")
    assert b"allow if {" in files["objects/policies/resource-policy.rego"]
    (policy,) = (each for each in draft.objects if each["kind"] == "BrokerPolicy")
    assert policy["spec"]["configMapRef"] == {"name": "kbs-policies", "key": "resource-policy.rego"}
    assert b"name: kbs-policies" in files["objects/kustomization.yaml"]
