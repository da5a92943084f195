"""The upload pipeline: what is refused, with which words, and that an accepted text decides."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.compile import MAX_SIZE, Compiler, decode_text, offered_functions
from kbs.policy.engine import PolicyKind
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.kbs.policy.support import NOW, REQUEST, document

E, R = PolicyKind.EVIDENCE, PolicyKind.RESOURCE
HEAD = "package policy\n"
DEFAULT = "default allow := false\n"
CLAIMS = HEAD + 'trust_claims := {"hardware": 2}\n'


@pytest.fixture(scope="module")
def compiler(opa: Path) -> Compiler:
    return Compiler(opa, lambda: 0)


@pytest.mark.parametrize("upload", [b"", b" \n", b"package policy\0", b"\xff", b"#" * (MAX_SIZE + 1)])
def test_bytes_that_are_no_text_are_refused_before_opa(upload: bytes) -> None:
    with pytest.raises(PolicyUnacceptable):
        decode_text(upload)


def test_without_opa_the_text_names_the_fix() -> None:
    with pytest.raises(PolicyCompilerMissing) as caught:
        Compiler(None, lambda: 0).compile(R, b"package policy\nallow := true\n")
    assert str(caught.value).endswith("kbs opa install")


@pytest.mark.parametrize("program", ["/nonexistent/opa", "/etc/passwd", "/bin/true"])
def test_an_opa_that_does_not_run_is_a_missing_one(program: str) -> None:
    with pytest.raises(PolicyCompilerMissing) as caught:
        Compiler(Path(program), lambda: 0).compile(R, b"package policy\nallow := true\n")
    assert str(caught.value).endswith("kbs opa install")


def test_an_opa_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "opa"
    old.write_text("#!/bin/sh\necho 'Version: 1.3.0'\n")
    old.chmod(0o755)
    with pytest.raises(PolicyCompilerMissing, match="too old"):
        Compiler(old, lambda: 0).compile(R, b"package policy\nallow := true\n")


def test_functions_that_reach_outside_are_not_offered() -> None:
    offered = offered_functions()
    assert "time.parse_rfc3339_ns" in offered
    never = ("http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122", "io.jwt.decode_verify",
             "crypto.x509.parse_certificates", "rego.parse_module", "trace")  # fmt: skip
    assert not offered & set(never)


REFUSED = {
    "v0": (R, HEAD + "allow { true }\n", "line 2, column 1"),
    "v0 names the rewrite": (R, HEAD + "allow { true }\n", "kbs policy migrate"),
    "another package": (R, "package other\nallow := true\n", "line 1, column 1: the package must be exactly"),
    "below the package": (R, "package policy.sub\nallow := true\n", "the package must be exactly"),
    "our wrapper's package": (R, "package kbs.resource\nallow := true\n", "the package must be exactly"),
    "two packages": (R, HEAD + "allow := true\npackage kbs.resource\n", "line 3"),
    "no rule allow": (R, HEAD + "x := 1\n", "must define the rule `allow`"),
    "allow as function": (R, HEAD + "allow(x) if x\n", "must be a rule"),
    "evidence without trust_claims": (E, HEAD + "allow := true\n", "must define the rule `trust_claims`"),
    "query_reference_value": (E, CLAIMS + "query_reference_value(x) := 1\n", "line 3, column 1"),
    "reading our data": (E, CLAIMS + "x := data.kbs.reference\n", "line 3, column 6: `data.kbs` belongs"),
    "importing our data": (E, CLAIMS + "y := x\nimport data.kbs.reference as x\n", "refused"),
    "importing all data": (R, HEAD + "import data as d\nallow if d.x\n", "cannot be imported as a whole"),
    "replacing our data": (E, HEAD + "trust_claims := x if x := 1 with data.kbs.reference as {}\n", "belongs"),
    "data by variable": (R, HEAD + "allow if data[input.x]\n", "must be followed by a fixed name"),
    "all data": (R, HEAD + "allow if count(data) > 0\n", "recursive"),
    "http.send": (R, HEAD + 'allow if http.send({"url": "x", "method": "get"})\n', "line 2, column 10"),
    "opa.runtime": (R, HEAD + "allow if opa.runtime().env\n", "opa.runtime"),
    "reference values in a resource policy": (R, HEAD + 'allow if query_reference_value("x")\n', "undefined function"),
    "unsafe variable": (R, HEAD + "allow if x\n", "line 2"),
    "recursion": (R, HEAD + "allow if b\nb if allow\n", "recursive"),
    "no Rego": (R, "allow everything", "line 1"),
    "a schema in a file": (
        R,
        '# METADATA\n# scope: package\n# schemas:\n#   - input: {"$ref": "file:///etc/hostname"}\n'
        + HEAD + "allow if input.x\n",
        "line 1, column 1: annotations must not name schemas",
    ),
    "a schema written oddly": (
        R, HEAD + '# METADATA\n# "sch\\u0065mas":\n# - input: {"type": "x"}\nallow if input.x\n', "must not name"
    ),
    "a schema by name": (R, HEAD + "# METADATA\n# schemas: [input: schema.x]\nallow if input.x\n", "must not name"),
    "an unknown claim": (E, HEAD + 'trust_claims := {"firmware": 2}\n', "unknown claim"),
    "a fraction": (E, HEAD + 'trust_claims := {"hardware": 2.5}\n', "not an integer"),
    "two values": (R, HEAD + "allow := true if input\nallow := false if input\n" + DEFAULT, "conflict"),
    "a bomb": (R, HEAD + "allow if count(numbers.range(1, 1000000000)) > 0\n", "fuel"),
    "an unoffered form": (R, HEAD + 'allow if sprintf("%5d", [1]) == "x"\n', "sprintf"),
}  # fmt: skip
REFUSED["importing our data"] = (
    E,
    HEAD + 'import data.kbs.reference as x\ntrust_claims := {"hardware": x.a}\n',
    "belongs",
)


@pytest.mark.opa
@pytest.mark.parametrize("name", REFUSED)
def test_refused(compiler: Compiler, name: str) -> None:
    kind, text, words = REFUSED[name]
    text += DEFAULT if "\nallow if" in text else ""
    with pytest.raises(PolicyUnacceptable) as caught:
        compiler.compile(kind, text.encode())
    assert words in str(caught.value)
    assert not isinstance(caught.value, PolicyCompilerMissing)


@pytest.mark.opa
def test_hostile_texts_cost_little_time(compiler: Compiler) -> None:
    start = time.monotonic()
    for text in (
        HEAD + "allow if " + "[" * 50_000,
        HEAD + "allow if " + "(" * 50_000 + "1",
        HEAD + "allow := " + "9" * 200_000,
    ):
        with pytest.raises(PolicyUnacceptable):
            compiler.compile(R, text.encode())
    assert time.monotonic() - start < 30


@pytest.mark.opa
def test_an_accepted_text_decides(compiler: Compiler) -> None:
    text = HEAD + 'allow if {\n\tinput.role == "x"\n\tdata["resource-path"][0] == "default"\n}\n' + DEFAULT
    policy = compiler.compile(R, text.encode()).policy
    engine = WasmEngine(lambda: NOW)
    assert engine.authorize(policy, document({"role": "x"}), REQUEST) is True
    assert engine.authorize(policy, document({"role": "y"}), REQUEST) is False
    assert engine.authorize(policy, document({"role": "x"}), {**REQUEST, "resource-path": ["other"]}) is False


@pytest.mark.opa
def test_tolerated_imports_and_libraries_compile(compiler: Compiler) -> None:
    text = "package policy\nimport rego.v1\nimport future.keywords.in\nimport data.kbs.findings as found\n"
    text += "# METADATA\n# title: one\n# entrypoint: true\n"
    text += DEFAULT + 'allow if 1 in [1]\nfindings := [found.equals("allow", "a", input.a, 1)]\n'
    assert compiler.compile(R, text.encode()).policy.wasm


@pytest.mark.opa
def test_strict_findings_are_warnings(compiler: Compiler) -> None:
    compiled = compiler.compile(R, (HEAD + "allow if {\n\tx := 1\n\ttrue\n}\n" + DEFAULT).encode())
    assert any("line 3" in warning for warning in compiled.warnings)


@pytest.mark.opa
def test_shipped_texts_pass_and_give_the_shipped_module(compiler: Compiler) -> None:
    shipped = Shipped.load()
    for name in ("evidence/upstream/gpu", "resource/affirming"):
        text = (policies_folder() / f"{name}.rego").read_bytes()
        assert compiler.compile(PolicyKind(name.split("/")[0]), text).policy.wasm == shipped.policy(name).wasm
