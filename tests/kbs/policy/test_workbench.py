"""Authors' tools over the real `opa`: tests with fixtures, coverage, format, trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.engine import PolicyKind
from kbs.policy.opa_command import OpaCommand
from kbs.policy.rego_sources import policies_folder
from kbs.policy.workbench import Coverage, Workbench

E, R = PolicyKind.EVIDENCE, PolicyKind.RESOURCE
POLICY = b"""package policy

default trust_claims := {"executables": 33, "configuration": 36}

trust_claims := {"executables": 3, "configuration": configuration} if {
	input.snp.measurement in query_reference_value("snp_launch_measurement")
}

configuration := 2 if {
	input.snp.policy_debug_allowed == false
} else := 36
"""
TESTS = b"""package mine_test

import data.policy

test_good if {
	claims := policy.trust_claims with input as data.fixtures.snp.good with data.kbs.reference as data.references.snp
	claims == {"executables": 3, "configuration": 2}
}

test_unregistered if {
	claims := policy.trust_claims with input as data.fixtures.snp.good
	claims.executables == 33
}
"""
DEBUG = b"""
test_debug if {
	claims_of_debug := [{"op": "replace", "path": "/snp/policy_debug_allowed", "value": true}]
	changed := json.patch(data.fixtures.snp.good, claims_of_debug)
	claims := policy.trust_claims with input as changed with data.kbs.reference as data.references.snp
	claims.configuration == 36
}
"""


@pytest.fixture(scope="module")
def bench(opa: Path) -> Workbench:
    return Workbench(OpaCommand(opa))


@pytest.mark.opa
def test_tests_find_fixtures_and_reference_values(bench: Workbench) -> None:
    outcomes = bench.test(E, POLICY, TESTS + DEBUG)
    assert [(each.name, each.passed, each.why) for each in outcomes] == [
        ("test_good", True, ""), ("test_unregistered", True, ""), ("test_debug", True, ""),
    ]  # fmt: skip
    assert outcomes[0].line == 5


@pytest.mark.opa
def test_one_that_fails_says_where(bench: Workbench) -> None:
    [outcome] = bench.test(E, POLICY, TESTS + b"\ntest_wrong if 1 == 2\n", only="wrong")
    assert (outcome.name, outcome.passed, outcome.line) == ("test_wrong", False, 15)
    assert outcome.why


@pytest.mark.opa
def test_one_that_is_put_off_has_not_passed(bench: Workbench) -> None:
    [outcome] = bench.test(E, POLICY, b"package x_test\n\ntodo_test_later if true\n")
    assert (outcome.passed, outcome.why) == (False, "skipped")


@pytest.mark.opa
@pytest.mark.parametrize(
    ("policy", "tests", "words"),
    [
        (POLICY + b"x if y\n", TESTS, "line 12, column 6: var y is unsafe"),
        (POLICY, TESTS + b"test_x if nobody(1)\n", "policy_test.rego, line 14, column 11: "),
        (POLICY, TESTS + b"test_x if {\n", "policy_test.rego, line 15"),
        (POLICY, b'package x_test\ntest_x if http.send({"url": "http://127.0.0.1"})\n', "undefined function http.send"),
        (POLICY, b"package x_test\ntest_x if opa.runtime().env\n", "undefined function opa.runtime"),
    ],
)  # fmt: skip
def test_what_does_not_compile_names_file_and_place(bench: Workbench, policy: bytes, tests: bytes, words: str) -> None:
    with pytest.raises(PolicyUnacceptable) as caught:
        bench.test(E, policy, tests)
    assert words in str(caught.value)


@pytest.mark.opa
def test_coverage_names_the_lines_that_no_test_reaches(bench: Workbench) -> None:
    assert bench.cover(E, POLICY, TESTS + DEBUG) == Coverage(100.0, ())
    found = bench.cover(E, POLICY, b"package x_test\nimport data.policy\ntest_x if policy.configuration == 36\n")
    assert 0 < found.percent < 100
    assert any(first <= 6 <= last for first, last in found.missed)  # the condition on the measurement


@pytest.mark.opa
@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (TESTS + b"\ntest_wrong if 1 == 2\n", "tests fail: test_wrong"),
        (b"package x_test\n", "no test"),
        (b"package", "policy_test.rego"),
    ],
)
def test_no_coverage_without_tests_that_pass(bench: Workbench, tests: bytes, words: str) -> None:
    with pytest.raises(PolicyUnacceptable, match=words):
        bench.cover(E, POLICY, tests)


@pytest.mark.opa
def test_resource_policies_are_tested_with_tokens(bench: Workbench) -> None:
    policy = b"""package policy

default allow := false

allow if {
	every each in input.submods {
		each["ear.status"] == "affirming"
	}
}
"""
    tests = b"""package x_test

import data.policy

test_every_tee if {
	count(data.tokens) > 10
	every tee, tokens in data.tokens {
		policy.allow == (tee != "sampledevice") with input as tokens.good
		not policy.allow with input as tokens.unregistered
	}
}
"""
    assert [each.passed for each in bench.test(R, policy, tests)] == [True]


@pytest.mark.opa
def test_format(bench: Workbench) -> None:
    assert bench.format(b"package policy\ndefault allow:=false\n") == "package policy\n\ndefault allow := false\n"
    assert bench.format(POLICY).encode() == POLICY
    with pytest.raises(PolicyUnacceptable, match="line 3: rego_parse_error"):
        bench.format(b"package policy\nallow if {\n")


@pytest.mark.opa
def test_trace_shows_rules_and_reference_values(bench: Workbench) -> None:
    trace = bench.trace(
        E, POLICY, b'{"snp": {"measurement": "00"}}', {"kbs": {"reference": {"snp_launch_measurement": ["00"]}}}
    )
    assert "policy.rego:5" in trace
    assert "query_reference_value" in trace
    with pytest.raises(PolicyUnacceptable, match="no trace"):
        bench.trace(E, b"package policy\nx if y\n", b"{}", {})


def test_without_opa_it_says_how_to_get_it() -> None:
    with pytest.raises(PolicyCompilerMissing, match="kbs opa install"):
        Workbench(OpaCommand(Path("/nonexistent/opa"))).format(POLICY)


@pytest.mark.opa
def test_compound_sets_are_there_for_tests(opa: Path) -> None:
    text = (policies_folder() / "evidence/same-release.rego").read_bytes()
    tests = """package mine_test

import data.policy

good := [tee |
	some tee, sets in data.reference_sets
	claims := policy.trust_claims with input as data.fixtures[tee].good with data.kbs.reference_sets as sets
	claims.executables in [3, 4]
]

test_good if {"snp", "tdx", "nitro", "cca", "csv"} - {tee | some tee in good} == set()

test_alone if {
	claims := policy.trust_claims with input as data.fixtures.snp.good with data.kbs.reference as data.references.snp
	claims.executables == 33
}
"""
    outcomes = Workbench(OpaCommand(opa)).test(PolicyKind.EVIDENCE, text, tests.encode())
    assert [outcome.passed for outcome in outcomes] == [True, True]


SCHEMA = '# METADATA\n# {word}:\n# - input: {{"$ref": "file://{path}"}}\n'


@pytest.mark.opa
@pytest.mark.parametrize("word", ["schemas", '"sch\\u0065mas"'], ids=["plain", "escaped"])
@pytest.mark.parametrize("where", ["rule", "package", "policy"])
def test_no_file_of_this_machine_is_read_for_a_schema(bench: Workbench, tmp_path: Path, word: str, where: str) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("canary")
    annotation = SCHEMA.format(word=word, path=secret).encode()
    tests = b"package policy_test\n\ntest_a if true\n"
    policy = b"package policy\n\ndefault allow := false\n"
    if where == "rule":
        tests = tests.replace(b"test_a", annotation + b"test_a")
    elif where == "package":
        tests = annotation.replace(b"METADATA", b"METADATA\n# scope: subpackages") + tests
    else:
        policy = policy.replace(b"default", annotation + b"default")
    for use in (bench.test, bench.require_passing, bench.cover):
        with pytest.raises(PolicyUnacceptable, match="must not name schemas"):
            use(R, policy, tests)


@pytest.mark.opa
@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (b"package policy\n\nallow if true\n\ntest_a if allow\n", "package of their own"),
        (b"package kbs.resource\n\ntest_a if true\n", "package of their own"),
        (b"package kbs.findings\n\nother := 1\n\ntest_a if true\n", "package of their own"),
        (b"package system.log\n\ntest_a if true\n", "package of their own"),
        (b"package fixtures\n\nsnp := 1\n\ntest_a if true\n", "conflicting rule"),
        (b"package policy_test\n\ntest_a(1) := true\n", "not called"),
        (b"package policy_test\n\ntest_a contains 1 if false\n", "does not hold"),
        (b"package policy_test\n\ntest_a := {}\n", "does not hold"),
        (b"package policy_test\n\ntest_a if opa.runtime().env\n", "undefined function opa.runtime"),
    ],
    ids=["policy", "wrapper", "library", "system", "fixtures", "function", "set", "object", "environment"],
)
def test_tests_that_prove_nothing_do_not_pass(bench: Workbench, tests: bytes, words: str) -> None:
    with pytest.raises(PolicyUnacceptable, match=words):
        bench.require_passing(R, b"package policy\n\ndefault allow := false\n", tests)
