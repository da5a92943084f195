"""docs/policies/lint.md: every rule is there with its severity, and its examples do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.lint import RULES, Severity

PAGE = (Path(__file__).parents[4] / "docs/policies/lint.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### (?P<rule>[a-z-]+)$(?P<body>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```rego\n# (?P<mark>bad|good): (?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {found["rule"]: found["body"] for found in SECTION.finditer(PAGE)}


@pytest.fixture(scope="module")
def compiler(opa: Path) -> Compiler:
    return Compiler(opa, lambda: 0)


def test_every_rule_has_its_section_under_its_severity() -> None:
    assert list(SECTIONS) == list(RULES)
    errors, warnings = PAGE.split("## Warnings\n")
    for rule, severity in RULES.items():
        assert f"\n### {rule}\n" in (errors if severity is Severity.ERROR else warnings)


@pytest.mark.opa
@pytest.mark.parametrize("rule", RULES)
def test_the_examples_of_a_rule(compiler: Compiler, rule: str) -> None:
    examples = [found.groupdict() for found in EXAMPLE.finditer(SECTIONS[rule])]
    assert [each["mark"] for each in examples] == ["bad", "good"]
    bad, good = ((PolicyKind(each["kind"]), each["text"].encode()) for each in examples)
    assert {each.rule for each in compiler.lint(*bad)} == {rule}
    assert compiler.lint(*good) == ()
