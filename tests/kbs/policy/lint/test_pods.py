"""A Pod's word without evidence is warned of, wherever in a policy it stands; with evidence it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.lint.pods import unknown_member

HEAD = "package policy\n\ndefault allow := false\n\n"
AFFIRMED = 'input.submods.cpu0["ear.status"] == "affirming"'
POD = 'data.identity.kubernetes.namespace == "payments"'

ALONE = {
    "plain": f"allow if {POD}\n",
    "by-name": 'allow if data["identity"]["kubernetes"].pod == "a"\n',
    "whole": "allow if count(data.identity) > 0\n",
    "by-rule": f"allow if known\n\nknown if {POD}\n",
    "by-value": "allow := known\n\nknown if pod.namespace\n\npod := data.identity.kubernetes\n",
    "second-of-two": f"allow if {AFFIRMED}\n\nallow if {POD}\n",
    "else": f"allow if {{\n\t{AFFIRMED}\n\t{POD}\n}} else if {POD}\n",
    "before-else": f"allow if {POD}\nelse if {AFFIRMED}\n",
    "import": f"import data.identity.kubernetes as pod\n\nallow if pod.namespace\n\nother if {AFFIRMED}\n",
}
WITH_EVIDENCE = {
    "both": f"allow if {{\n\t{AFFIRMED}\n\t{POD}\n}}\n",
    "by-rule": f"allow if {{\n\tgood\n\t{POD}\n}}\n\ngood if {AFFIRMED}\n",
    "by-library": f"import data.kbs.affirming\n\nallow if {{\n\taffirming.resource\n\t{POD}\n}}\n",
    "by-path": f"allow if {{\n\tdata.kbs.affirming.resource\n\t{POD}\n}}\n",
    "no": f"allow := false if {POD}\n\nallow if {{\n\t{AFFIRMED}\n\tdata.query == {{}}\n}}\n",
    "no-pod": f"allow if {AFFIRMED}\n",
}


def rules(opa: Path, text: str) -> set[str]:
    head = HEAD
    if text.startswith("import"):
        line, _, text = text.partition("\n\n")
        head = HEAD.replace("\n\n", f"\n\n{line}\n\n", 1)
    return {each.rule for each in Compiler(opa, lambda: 0).lint(PolicyKind.RESOURCE, (head + text).encode())}


@pytest.mark.opa
@pytest.mark.parametrize("name", ALONE)
def test_a_pod_alone(opa: Path, name: str) -> None:
    assert "identity-alone" in rules(opa, ALONE[name])


@pytest.mark.opa
@pytest.mark.parametrize("name", WITH_EVIDENCE)
def test_a_pod_beside_evidence(opa: Path, name: str) -> None:
    assert "identity-alone" not in rules(opa, WITH_EVIDENCE[name])


@pytest.mark.opa
def test_members_that_do_not_exist(opa: Path) -> None:
    assert "unknown-data" in rules(opa, f'allow if {{\n\t{AFFIRMED}\n\tdata.identity.kubernetes.namespce == "a"\n}}\n')
    assert "unknown-data" in rules(opa, f"allow if {{\n\t{AFFIRMED}\n\tdata.identity.spiffe\n}}\n")


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["data", "identity"], None),
        (["data", "identity", "kubernetes"], None),
        (["data", "identity", "kubernetes", "pod_uid"], None),
        (["data", "identity", "kubernetes", None], None),
        (["data", "identity", None, "x"], "data.identity.kubernetes.x"),
        (["data", "identity", "other"], "data.identity.other"),
        (["data", "identity", "kubernetes", "uid"], "data.identity.kubernetes.uid"),
        (["data", "query", "x"], None),
    ],
    ids=range(8),
)
def test_names(names: list[str | None], unknown: str | None) -> None:
    assert unknown_member(names) == unknown
