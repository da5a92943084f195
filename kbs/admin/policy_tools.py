"""What authors' tools answer, as documents: the same for `kbs policy lint` on files and for the broker's routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kbs import strict_json
from kbs.errors import PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.outcome import resource_input
from kbs.policy.rego_sources import sha256_hex
from kbs.policy.workbench import Workbench
from kbs.strict_json import Json

Document = dict[str, Any]
"""Members for JSON. Those that judge a policy begin with `kind` and `digest`, the SHA-256 of its text."""


@dataclass(frozen=True, slots=True)
class PolicyTools:
    """Lint, check, test, coverage and form of texts that nobody has set. Nothing is changed.

    Every method raises `PolicyCompilerMissing` where there is no `opa`, and all but `check` raise `PolicyUnacceptable`
    for a text that cannot be read.
    """

    compiler: Compiler

    def lint(self, kind: PolicyKind, text: bytes) -> Document:
        """`findings`, errors first."""
        findings = [each.document() for each in self.compiler.lint(kind, text)]
        return {**_named(kind, text), "findings": findings}

    def check(self, kind: PolicyKind, text: bytes, tests: bytes | None = None) -> Document:
        """All that an upload does, its tests included: `ok`, `error`, `warnings`, and what was built."""
        document = _named(kind, text)
        try:
            compiled = self.compiler.compile(kind, text)
            if tests is not None:
                Workbench(self.compiler.opa()).require_passing(kind, text, tests)
        except PolicyCompilerMissing:
            raise
        except PolicyUnacceptable as err:
            return {**document, "ok": False, "error": str(err), "warnings": []}
        return {
            **document,
            "ok": True,
            "error": None,
            "warnings": list(compiled.warnings),
            "opa": compiled.opa_version,
            "wasm_sha256": sha256_hex(compiled.policy.wasm or b""),
        }

    def test(self, kind: PolicyKind, text: bytes, tests: bytes, only: str | None = None) -> Document:
        """`passed` (false too when no test ran) and `tests`. only: a regular expression that their names must match."""
        outcomes = self._workbench().test(kind, text, tests, only=only)
        passed = bool(outcomes) and all(each.passed for each in outcomes)
        return {**_named(kind, text), "passed": passed, "tests": [each.document() for each in outcomes]}

    def coverage(self, kind: PolicyKind, text: bytes, tests: bytes) -> Document:
        """`percent` and `missed`, pairs of first and last line. Failing tests raise `PolicyUnacceptable`."""
        found = self._workbench().cover(kind, text, tests)
        return {**_named(kind, text), "percent": found.percent, "missed": [list(each) for each in found.missed]}

    def format(self, text: bytes) -> Document:
        """`text` in the usual form, and whether that is another one: `changed`."""
        formatted = self._workbench().format(text)
        return {"text": formatted, "changed": formatted.encode() != text}

    def trace(
        self,
        kind: PolicyKind,
        text: bytes,
        claims: Mapping[str, Json],
        data: Mapping[str, Json],
        request: Mapping[str, Json],
    ) -> str:
        """OPA's own trace of one evaluation. data: what reference values are looked up in."""
        encoded = strict_json.encode(dict(claims))
        if kind is PolicyKind.EVIDENCE:
            return self._workbench().trace(kind, text, encoded, data)
        return self._workbench().trace(kind, text, resource_input(encoded, request), {})

    def _workbench(self) -> Workbench:
        return Workbench(self.compiler.opa())


def _named(kind: PolicyKind, text: bytes) -> Document:
    return {"kind": kind.value, "digest": sha256_hex(text)}
