"""Broken and hostile policies, more than 200 of them, each refused for the reason it should be refused for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kbs.errors import PolicyUnacceptable
from kbs.policy.compile import MAX_SIZE, Compiler, decode_text
from kbs.policy.engine import PolicyKind
from kbs.policy.lint import LintFinding, Severity

E, R = PolicyKind.EVIDENCE, PolicyKind.RESOURCE
Hostile = tuple[PolicyKind, str]

HEAD = "package policy\n"
ALLOW = HEAD + 'default allow := false\nallow if input.submods.cpu0["ear.status"] == "affirming"\n'
CLAIMS = HEAD + 'default trust_claims := {"hardware": 97}\n'
GOOD = """package policy

default allow := false

allow if {
	data.plugin == "resource"
	every name, appraisal in input.submods {
		appraisal["ear.status"] == "affirming"
	}
	count({name | some name, _ in input.submods}) > 0
}
"""
UNSAFE = (
    'http.send({"method": "get", "url": "http://127.0.0.1"})',
    'net.lookup_ip_addr("localhost")',
    "opa.runtime()",
    'rand.intn("x", 5)',
    'uuid.rfc4122("x")',
    'rego.parse_module("x", "package x")',
    'io.jwt.decode("a.b.c")',
    'io.jwt.verify_hs256("a.b.c", "x")',
    'io.jwt.decode_verify("a.b.c", {})',
    "io.jwt.encode_sign({}, {}, {})",
    'crypto.x509.parse_certificates("x")',
    'crypto.x509.parse_and_verify_certificates("x")',
    'crypto.parse_private_keys("x")',
    'graphql.parse("x", "y")',
    "providers.aws.sign_req({}, {}, 1)",
    'trace("x")',
)
PLACES = (
    "allow if {}\n",
    "allow if count([1 | x := {}]) > 0\n",
    "allow if helper\nhelper if {}\n",
    "allow if input.a with input as {}\n",
)


def syntax() -> Iterator[Hostile]:
    """Texts cut short, Rego v0, other languages, brackets that never close."""
    for end in range(len(HEAD) + 12, len(GOOD) - 3, 9):
        if not GOOD[:end].endswith(("\n", "false")) and "{" in GOOD[:end]:
            yield R, GOOD[:end]
    for body in ("allow { true }", "allow = true { input.a }", "deny[x] { x := 1 }", "f(x) = y { y := x }"):
        yield R, ALLOW + body + "\n"
    for text in (
        "{",
        '{"allow": true}',
        "allow everything",
        "def allow(): return True",
        "<policy/>",
        "SELECT 1",
        "\ufeff\ufeff",
    ):
        yield R, text
    for junk in ("[" * 5000, "(" * 5000, '"' + "a" * 50, "`" + "a" * 50, "allow if 1 == ", "allow if not", "x := := 1"):
        yield R, ALLOW + f"allow if {junk}\n"
    yield R, ALLOW + "package kbs.resource\nverdict := {}\n"
    yield R, ALLOW.replace("package policy", "package polic\u0443")


def wrong_package() -> Iterator[Hostile]:
    """Packages that would be ignored, or would stand in the place of the broker's own."""
    for name in (
        "kbs.resource",
        "kbs.evidence",
        "kbs.checks",
        "kbs.findings",
        "kbs",
        "policy.sub",
        "Policy",
        "policy_",
        "system",
        "system.authz",
        "data",
        "main",
        'policy["x"]',
        "a.b.c.d.e",
    ):
        yield R, ALLOW.replace("package policy", f"package {name}")
        yield E, CLAIMS.replace("package policy", f"package {name}")


def reserved_name() -> Iterator[Hostile]:
    """Taking the place of what the broker gives, or reading what is the broker's."""
    for definition in (
        'query_reference_value(x) := ["00"]',
        "query_reference_value := 1",
        "default query_reference_value(_) := 1",
        "query_reference_value contains 1",
        'query_reference_value["x"] := 1',
    ):
        yield E, CLAIMS + definition + "\n"
    for target in ("query_reference_value", "query_reference_sets", "data.policy.query_reference_value"):
        yield E, CLAIMS + f'given(_) := ["00"]\n\nx := y if y := query_reference_value("x") with {target} as given\n'
    for alias in ("query_reference_value", "query_reference_sets"):
        yield E, HEAD + f"import data.kbs.checks as {alias}\n" + CLAIMS.removeprefix(HEAD)
    for reference in (
        "data.kbs.reference",
        "data.kbs.reference.x",
        'data["kbs"].reference',
        'data.kbs["reference"]',
        "data.kbs",
        "data.kbs.evidence.verdict",
        "data.kbs[input.x]",
        "data[input.x]",
        "data[input.x].reference",
    ):
        yield E, CLAIMS + f"x := {reference}\n"
        yield E, CLAIMS + f"x := [y | y := {reference}]\n"
        yield E, CLAIMS + f"x := y if {{ some y in [1] }} else := {reference}\n"
    for changed in ("data.kbs.reference", "data.kbs.resource.verdict"):
        yield R, ALLOW + f"allow if input.a with {changed} as {{}}\n"
    yield R, HEAD + "import data as d\n" + ALLOW.removeprefix(HEAD)
    yield R, HEAD + "import data.kbs.reference as d\n" + ALLOW.removeprefix(HEAD)


def schema_annotation() -> Iterator[Hostile]:
    """Schemas that `opa check` would read from this machine."""
    for reference in ("file:///etc/passwd", "file:///proc/self/environ", "http://127.0.0.1/x", "x.json"):
        yield R, f'# METADATA\n# scope: package\n# schemas:\n#   - input: {{"$ref": "{reference}"}}\n' + ALLOW
    yield R, ALLOW + '# METADATA\n# "sch\\u0065mas":\n# - input: {"type": "x"}\nallow if input.x\n'


def missing_result() -> Iterator[Hostile]:
    """No rule that the broker would ask for."""
    for text in (
        "x := 1",
        "Allow := true",
        "allowed := true",
        "trust_claim := {}",
        "allow_ := true",
        "import data.allow",
    ):
        yield R, HEAD + text + "\n"
        yield E, HEAD + text + "\n"
    yield R, CLAIMS
    yield E, ALLOW


def wrong_result_type() -> Iterator[Hostile]:
    """Results that are no answer."""
    for value in ('"true"', "1", "0", "null", "[true]", "{true}", '{"allow": true}', "[x | some x in [true]]"):
        yield R, HEAD + f"default allow := {value}\n"
        yield R, ALLOW + f"allow := {value} if input.x\n"
    for text in (
        "allow(x) if x",
        "allow contains x if some x in [1]",
        'allow["x"] := true',
        "allow := true if input.a else := 1",
    ):
        yield R, HEAD + text + "\n"
    for value in ('"affirming"', "2", "true", "null", "[2]", "{2}", "{}"):
        yield E, HEAD + f"default trust_claims := {value}\n"
    for member in (
        '"hardware": "2"',
        '"hardware": 2.5',
        '"hardware": true',
        '"hardware": null',
        '"hardware": [2]',
        '"hardware": 128',
        '"hardware": -129',
        '"hardware": 1e3',
        '"hardware": 99999999999999999999',
        '"firmware": 2',
        '"": 2',
        '"hardware ": 2',
        '"Hardware": 2',
        "2: 2",
        '"hardw\\u0430re": 2',
    ):
        yield E, CLAIMS + f"trust_claims := {{{member}}} if input.sample\n"
    yield E, HEAD + "trust_claims contains 2\n"
    yield E, HEAD + 'trust_claims["firmware"] := 2\n'


def no_default() -> Iterator[Hostile]:
    """Results that have no value for some guest."""
    for text in (
        "allow if input.a",
        "allow := input.a",
        "allow := x if x := input.a",
        "allow if { false } else := true if input.b",
        "allow := helper\nhelper if input.a",
        "allow := data.plugin",
    ):
        yield R, HEAD + text + "\n"
    for text in (
        'trust_claims := {"hardware": 2} if input.snp',
        'trust_claims := {"hardware": input.snp.x}',
        "trust_claims := input.claims",
        'trust_claims := {"hardware": h}\nh := 2 if input.snp',
    ):
        yield E, HEAD + text + "\n"


def unsafe_builtin() -> Iterator[Hostile]:
    """Functions that reach outside, in every place where a call may stand."""
    for call in UNSAFE:
        for place in PLACES:
            yield R, ALLOW + place.format(call)


def does_not_compile() -> Iterator[Hostile]:
    """What OPA itself refuses."""
    for text in (
        "allow if x",
        "allow if nobody.knows(input.a)",
        "allow if helper\nhelper if allow",
        "default allow := true",
        "f(x) := f(x)\nallow if f(1)",
        "allow if x := x",
        "allow if count(1, 2, 3)",
        'allow if 1 + "a" == 2',
        'allow if query_reference_value("x")',
        "allow if data == input",
        "x := 1\nx(y) := y\nallow if x",
        "allow if not x == 1",
        "allow if yaml.unmarshal(input.a)",
        'allow if strings.render_template("x", {})',
        "allow if { some x; not x }",
        "a.b := 1\na.b.c := 2\nallow if a",
    ):
        yield R, ALLOW + text + "\n"


FAMILIES = {
    "syntax": syntax,
    "wrong-package": wrong_package,
    "reserved-name": reserved_name,
    "schema-annotation": schema_annotation,
    "missing-result": missing_result,
    "wrong-result-type": wrong_result_type,
    "no-default": no_default,
    "unsafe-builtin": unsafe_builtin,
    "does-not-compile": does_not_compile,
}
NO_TEXT = (b"", b" \n\t", b"package policy\0", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"#" * (MAX_SIZE + 1))
ABORTS = {
    "fuel": "allow if count(numbers.range(1, 1000000000)) > 0\n",
    "conflict": "allow := true if is_object(input)\nallow := false if is_object(input)\n",
}


@pytest.fixture(scope="module")
def compiler(opa: Path) -> Compiler:
    return Compiler(opa, lambda: 0)


def test_there_are_enough() -> None:
    every = [hostile for family in FAMILIES.values() for hostile in family()]
    assert len(set(every)) == len(every) >= 200


@pytest.mark.parametrize("upload", NO_TEXT, ids=range(len(NO_TEXT)))
def test_no_text(upload: bytes) -> None:
    with pytest.raises(PolicyUnacceptable):
        decode_text(upload)


@pytest.mark.opa
@pytest.mark.parametrize("rule", FAMILIES)
def test_the_reason_is_the_right_one(compiler: Compiler, rule: str) -> None:
    hostile = list(FAMILIES[rule]())
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: compiler.lint(each[0], each[1].encode()), hostile))
    wrong = {
        text: [str(one) for one in findings]
        for (_, text), findings in zip(hostile, found, strict=True)
        if not _is(rule, findings)
    }
    assert not wrong


def _is(rule: str, findings: tuple[LintFinding, ...]) -> bool:
    return bool(findings) and findings[0].rule == rule and findings[0].severity is Severity.ERROR


@pytest.mark.opa
@pytest.mark.parametrize("rule", FAMILIES)
def test_what_lint_calls_an_error_is_no_upload(compiler: Compiler, rule: str) -> None:
    kind, text = next(FAMILIES[rule]())
    with pytest.raises(PolicyUnacceptable, match=rf"\[{rule}\]"):
        compiler.compile(kind, text.encode())


@pytest.mark.opa
@pytest.mark.parametrize("word", ABORTS)
def test_what_fails_when_it_runs_is_no_upload(compiler: Compiler, word: str) -> None:
    with pytest.raises(PolicyUnacceptable, match=word):
        compiler.compile(R, (ALLOW + ABORTS[word]).encode())
