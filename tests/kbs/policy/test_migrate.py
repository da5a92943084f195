"""Old policies become new ones, and mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.migrate import REFERENCE_VALUES, REGO_V1, migrate
from kbs.policy.opa_command import OpaCommand
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import NOW, document, snapshot

pytestmark = pytest.mark.opa

OLD = """package policy

import future.keywords.in

default hardware = 97

# data.reference.minimum, as it was
hardware = 2 {
	input.snp.svn >= data.reference.minimum
	input.snp.measurement in data.reference["measurement"]
	"data.reference.minimum" == `data.reference.minimum`
}

trust_claims := {"hardware": hardware}
"""
RESOURCE = 'package policy\n\ndefault allow = false\n\nallow { data.plugin == "resource" }\n'
GOOD = document({"snp": {"svn": 3, "measurement": "aa"}})


@pytest.fixture
def command(opa: Path) -> OpaCommand:
    return OpaCommand(opa)


def test_rego_v0_becomes_v1(command: OpaCommand) -> None:
    result = migrate(command, RESOURCE.encode())
    assert "default allow := false" in result.text
    assert "allow if data.plugin" in result.text
    assert "import" not in result.text
    assert [edit.name for edit in result.edits] == [REGO_V1]
    assert result.left == ()
    assert (
        Compiler(command.path, lambda: 0).compile(PolicyKind.RESOURCE, result.text.encode()).policy.text == result.text
    )


def test_what_is_new_stays_as_it_is(command: OpaCommand) -> None:
    new = migrate(command, RESOURCE.encode()).text
    again = migrate(command, new.encode(), references=True)
    assert (again.text, again.edits, again.left) == (new, (), ())


def test_reference_values_are_rewritten_only_when_asked(command: OpaCommand) -> None:
    result = migrate(command, OLD.encode())
    assert "data.reference.minimum" in result.text.replace("# data.reference.minimum", "")
    assert len(result.left) == 2
    assert all("--reference-values" in each for each in result.left)


def test_reference_values_keep_their_meaning(command: OpaCommand) -> None:
    result = migrate(command, OLD.encode(), references=True)
    assert [edit.name for edit in result.edits] == [REGO_V1, REFERENCE_VALUES]
    assert "# data.reference.minimum, as it was" in result.text
    assert '"data.reference.minimum" == `data.reference.minimum`' in result.text
    assert result.text.splitlines()[result.edits[1].lines[0] - 1].strip() == 'input.snp.svn >= registered("minimum")'
    policy = Compiler(command.path, lambda: 0).compile(PolicyKind.EVIDENCE, result.text.encode()).policy
    engine = WasmEngine(lambda: NOW)
    values = {"minimum": 3, "measurement": ["aa"]}
    assert engine.appraise(policy, GOOD, snapshot(values, "all")).trust_claims == {"hardware": 2}
    # what nobody registered is undefined: null would be below every number
    for left_out in values:
        rest = {name: value for name, value in values.items() if name != left_out}
        assert engine.appraise(policy, GOOD, snapshot(rest, left_out)).trust_claims == {"hardware": 97}
    engine.close()


@pytest.mark.parametrize(
    "line",
    ["import data.reference", "import data.reference.minimum", "y if x with data.reference.minimum as 1",
     "y if data.reference[x]", "y if data.reference", "registered if data.reference.x"],
)  # fmt: skip
def test_what_cannot_be_rewritten_is_named(command: OpaCommand, line: str) -> None:
    text = f"package policy\n\n{line}\n\nx := 1\n"
    result = migrate(command, text.encode(), references=True)
    assert result.text == text
    assert len(result.left) == 1
    assert result.left[0].startswith("line 3: `data.reference")


def test_other_data_is_not_touched(command: OpaCommand) -> None:
    text = "package policy\n\nx := data.references.y\n\ny := data.reference_sets\n\nz := input.data.reference.x\n"
    assert migrate(command, text.encode(), references=True).text == text


@pytest.mark.parametrize(
    ("text", "why"),
    [("package policy\nallow { input.x == }\n", "line 2"), ("allow { true }", "line 1"),
     ("package policy\n\x00", "NUL"), ("", "empty"), ("#!/bin/sh\n" * 3, "line")],
    ids=["syntax", "no package", "NUL", "empty", "script"],
)  # fmt: skip
def test_what_is_rego_of_no_version_is_refused(command: OpaCommand, text: str, why: str) -> None:
    with pytest.raises(PolicyUnacceptable, match=why):
        migrate(command, text.encode())


def test_without_opa_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(PolicyCompilerMissing, match="kbs opa install"):
        migrate(OpaCommand(tmp_path / "opa"), RESOURCE.encode())
