"""What lint says of the policies that come with the package: no error anywhere, and no warning but where one is due."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.lint import Severity
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.well_known import BY_DIGEST

NAMES = Shipped.load().names()
WARNED = {
    "resource/allow-all": {"always-allows"},  # which is what it is there for
    "resource/upstream/allow-all": {"always-allows"},
    "resource/upstream/default": {"negated-claim"},
    "evidence/upstream/ppcie": {"always-allows", "no-reference-value"},
}


@pytest.fixture(scope="module")
def compiler(opa: Path) -> Compiler:
    return Compiler(opa, lambda: 0)


@pytest.mark.opa
@pytest.mark.parametrize("name", NAMES)
def test_lint(compiler: Compiler, name: str) -> None:
    text = (policies_folder() / f"{name}.rego").read_bytes()
    findings = compiler.lint(PolicyKind(name.split("/")[0]), text)
    assert not [str(each) for each in findings if each.severity is Severity.ERROR]
    assert {each.rule for each in findings} == WARNED.get(name, set())


def test_every_text_that_upstream_publishes_stands_for_one_of_these() -> None:
    assert {known.shipped for known in BY_DIGEST.values()} <= set(NAMES)


# Shapes of what upstream's documentation and tests hand out, in our words.
PUBLISHED = {
    "path and claim": """
default allow = false

allow if {
	count(data["resource-path"]) == 3
	data.plugin == "resource"
	input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"]["productId"] == data["resource-path"][1]
}
""",
    "minimum svn": """
import rego.v1

default allow := false

minimum := {"one": 2, "two": 3}

parts := split(data["resource-path"], "/")

allow if {
	input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"]
	data.plugin == "resource"
	minimum[parts[2]] <= input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"]["svn"]
}
""",
    "tokens of another issuer": 'default allow := false\nallow if input["tdx"]["attester_type"] != "sample"\n',
    "everything": "default allow := true\n",
    "nothing": "default allow := false\n",
}


@pytest.mark.opa
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_compile(compiler: Compiler, name: str) -> None:
    compiled = compiler.compile(PolicyKind.RESOURCE, ("package policy\n" + PUBLISHED[name]).encode())
    assert compiled.policy.wasm
    assert any("[always-allows]" in each for each in compiled.warnings) is (name == "everything")


@pytest.mark.opa
def test_an_evidence_policy_without_reference_values_compiles_with_a_warning(compiler: Compiler) -> None:
    text = b"""package policy
default executables := 33
default hardware := 97
default configuration := 36
trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}
executables := 3 if input.sample.launch_digest
hardware := 2 if input.sample.svn
configuration := 2 if input.sample.debug == false
"""
    [warning] = compiler.compile(PolicyKind.EVIDENCE, text).warnings
    assert warning.startswith("line 5, column 1: ")
    assert warning.endswith("[no-reference-value]")
