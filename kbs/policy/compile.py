"""From the bytes an administrator sends to a policy that may become active: the upload pipeline.

Size and encoding, syntax, our own rules on the syntax tree, `opa check` against the functions offered, compilation,
a trial run under limits, and the same inputs through `opa eval` for comparison (policy-engine.md 8). Every step must
pass; nothing is stored here.
"""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kbs.errors import PolicyBroken, PolicyCompilerMissing, PolicyUnacceptable
from kbs.policy import builtins, outcome
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.lint import LintFinding, Severity, lint_module
from kbs.policy.opa_command import TEXT_NAME, OpaCommand, write_modules
from kbs.policy.outcome import ENTRYPOINTS
from kbs.policy.rego_sources import CAPABILITIES, modules, sha256_hex
from kbs.policy.wasm_instance import WasmInstance, WasmModule, new_engine

MAX_SIZE: Final = 256 << 10  # octets; upstream's largest is 12 KiB
OLDEST_OPA: Final = (1, 4)  # CVE-2025-46569
_HINT_LIMIT: Final = 1500
_MOST_FINDINGS: Final = 10  # of opa's

_SAMPLE: Final[Mapping[str, Any]] = {
    "sample": {
        "svn": "1",
        "launch_digest": "abcde",
        "platform_version": {"major": 1, "minor": 4},
        "debug": False,
        "revocation": "not_applicable",
        "binding": "checked",
    },
    "report_data": "00",
    "init_data_claims": {},
}
_REQUEST: Final = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {}}
_APPRAISED: Final = {
    "ear.status": "affirming",
    "ear.veraison.annotated-evidence": {"snp": {"measurement": "00"}},
    "ear.trustworthiness-vector": {"hardware": 2},
}
_TRIALS: Final[Mapping[PolicyKind, tuple[Any, ...]]] = {
    PolicyKind.EVIDENCE: ({}, _SAMPLE, {"snp": {"measurement": "00", "reported_tcb_snp": 8}}),
    PolicyKind.RESOURCE: (
        {"claims": {}, "request": _REQUEST},
        {"claims": {"submods": {"cpu0": _APPRAISED}}, "request": _REQUEST},
        {"claims": {"submods": {}}, "request": {"plugin": "other", "resource-path": [], "query": {"a": "b"}}},
    ),
}
_REFERENCES: Final = {"launch_digest": ["abcde"], "svn": ["1"], "major_version": 1, "minimum_minor_version": 4}
_SETS: Final = {name: [_REFERENCES] for name in _REFERENCES}


@dataclass(frozen=True, slots=True)
class Compiled:
    """An acceptable policy. warnings: what lint would not like, for people."""

    policy: Policy
    opa_version: str
    warnings: tuple[str, ...]


class Compiler:
    """Compiles uploads with one `opa` program; without one it refuses, saying how to get it."""

    def __init__(self, opa: Path | None, now_ns: Callable[[], int]) -> None:
        """
        opa: the program, from the settings; None: none is configured.
        now_ns: what `time.now_ns` answers in trial runs.
        """
        self._opa = OpaCommand(opa) if opa is not None else None
        self._now_ns = now_ns

    def opa(self) -> OpaCommand:
        """The program.

        Raises:
            PolicyCompilerMissing: none is configured.
        """
        if self._opa is None:
            raise PolicyCompilerMissing(
                "compiling this policy needs opa, and none is configured; get it with: kbs opa install"
            )
        return self._opa

    def compile(self, kind: PolicyKind, upload: bytes, *, origin: str = "uploaded") -> Compiled:
        """Make a policy of an uploaded text. Takes about half a second.

        Raises:
            PolicyUnacceptable: with line and column where there is one.
            PolicyCompilerMissing: no `opa`, or one that does not run or is too old.
        """
        text = decode_text(upload)
        opa = self.opa()
        version = opa.version()
        if _numbers(version) < OLDEST_OPA:
            raise PolicyCompilerMissing(f"opa {version} is too old to compile policies; get one with: kbs opa install")
        library = modules(kind)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = write_modules(folder, library, text)
            findings = self._findings(opa, kind, folder, files, text)
            if wrong := [each for each in findings if each.severity is Severity.ERROR]:
                more = f" (and {len(wrong) - 1} more: kbs policy lint)" if len(wrong) > 1 else ""
                raise PolicyUnacceptable(f"{wrong[0]}{more}")
            warnings = tuple(str(each) for each in findings)
            wasm = opa.build(kind, library, text)
            self._try(opa, kind, folder, files, wasm, text)
        return Compiled(Policy(kind, text, sha256_hex(upload), wasm, origin), version, warnings)

    def lint(self, kind: PolicyKind, upload: bytes) -> tuple[LintFinding, ...]:
        """What lint says of a text, errors first. Nothing is built or run.

        Raises:
            PolicyUnacceptable: bytes that are no text, or that `opa` cannot cope with.
            PolicyCompilerMissing: no `opa`.
        """
        text = decode_text(upload)
        opa = self.opa()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            return self._findings(opa, kind, folder, write_modules(folder, modules(kind), text), text)

    def _findings(
        self, opa: OpaCommand, kind: PolicyKind, folder: Path, files: list[str], text: str
    ) -> tuple[LintFinding, ...]:
        done = opa.run(["parse", "--format", "json", "--json-include", "locations", TEXT_NAME], folder)
        if done.code != 0:
            return (self._not_parsed(opa, folder, text, errors_of(done.stdout, done.stderr)),)
        ours = lint_module(kind, done.json())
        if any(each.severity is Severity.ERROR for each in ours):
            return ours
        check = ["check", "--format", "json", "--capabilities", str(CAPABILITIES)]
        done = opa.run([*check, *files], folder)
        if done.code != 0:
            return (*_opa_findings("does-not-compile", errors_of(done.stdout, done.stderr)), *ours)
        strict = opa.run([*check, "--strict", *files], folder)
        if strict.code == 0:
            return ours
        return (*ours, *_opa_findings("strict", errors_of(strict.stdout, strict.stderr)))

    def _not_parsed(self, opa: OpaCommand, folder: Path, text: str, answer: Any) -> LintFinding:
        finding = _opa_findings("syntax", answer)[0]
        if opa.run(["parse", "--v0-compatible", "--format", "json", TEXT_NAME], folder).code != 0:
            return finding
        rewritten = opa.run(["fmt", "--v0-v1", TEXT_NAME], folder)
        hint = _rewrite_hint(text, rewritten.stdout.decode("utf-8", "replace")) if rewritten.code == 0 else ""
        old = f"{finding.text}: this is Rego v0, which is no longer accepted; `kbs policy migrate` rewrites it{hint}"
        return replace(finding, text=old)

    def _try(self, opa: OpaCommand, kind: PolicyKind, folder: Path, files: list[str], wasm: bytes, text: str) -> None:
        """Run the trial inputs here and in `opa eval`; both must agree, and neither may fail."""
        data = {"kbs": {"reference": _REFERENCES, "reference_sets": _SETS}} if kind is PolicyKind.EVIDENCE else {}
        (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
        reads_clock = "time.now_ns" in text
        try:
            module = WasmModule(new_engine(), wasm)
            for trial in _TRIALS[kind]:
                document = json.dumps(trial).encode("ascii")
                here = self._run_here(module, kind, json.dumps(data).encode("ascii"), document, text)
                there = _run_there(opa, kind, folder, files, document)
                if here != there and not reads_clock:
                    raise PolicyUnacceptable(
                        "the compiled policy and opa eval answer a trial input differently; it cannot be used",
                        operator_detail=f"{here!r:.300} against {there!r:.300}",
                    )
        except PolicyBroken as err:
            raise PolicyUnacceptable(f"the policy fails on a trial input: {err.operator_detail}") from err

    def _run_here(self, module: WasmModule, kind: PolicyKind, data: bytes, document: bytes, text: str) -> Any:
        instance = WasmInstance(module, data)
        answer = outcome.decode(instance.evaluate(ENTRYPOINTS[kind][0], document, self._now_ns))
        instance.close()
        if kind is PolicyKind.RESOURCE:
            outcome.allows(answer)
        elif "trust_claims" in answer:
            outcome.evidence_verdict(answer, text)
        return answer


def decode_text(upload: bytes) -> str:
    """The text of an upload.

    Raises:
        PolicyUnacceptable: too large, empty, not UTF-8, or with NUL.
    """
    if len(upload) > MAX_SIZE:
        raise PolicyUnacceptable(f"the policy is larger than {MAX_SIZE} octets")
    try:
        text = upload.decode("utf-8")
    except UnicodeDecodeError as err:
        raise PolicyUnacceptable(f"the policy is not UTF-8 at octet {err.start}") from err
    if not text.strip() or "\0" in text:
        raise PolicyUnacceptable("the policy is empty or has NUL in it")
    return text


def _run_there(opa: OpaCommand, kind: PolicyKind, folder: Path, files: list[str], document: bytes) -> Any:
    query = "data." + ENTRYPOINTS[kind][0].replace("/", ".")
    loaded = [word for name in (*files, "data.json") for word in ("-d", name)]
    done = opa.run(
        ["eval", "--format", "json", "--capabilities", str(CAPABILITIES), *loaded, "--stdin-input", query],
        folder,
        feed=document,
    )
    answer = errors_of(done.stdout, done.stderr)
    if done.code != 0 or "errors" in answer:
        raise PolicyUnacceptable(f"the policy fails on a trial input: {opa_message(answer)}")
    try:
        return answer["result"][0]["expressions"][0]["value"]
    except (KeyError, IndexError, TypeError) as err:
        raise PolicyUnacceptable("opa eval gives no answer for a trial input") from err


def errors_of(stdout: bytes, stderr: str) -> dict[str, Any]:
    """OPA writes its JSON errors to either stream."""
    for source in (stdout, stderr):
        try:
            answer = json.loads(source)
        except (ValueError, RecursionError):
            continue
        if isinstance(answer, dict):
            return answer
    return {"errors": [{"message": stderr[:300] or "opa failed without a word"}]}


def _opa_findings(rule: str, answer: Any) -> list[LintFinding]:
    """OPA's errors; those in the policy itself first, without a place when they are in the library."""
    listed = answer.get("errors") if isinstance(answer, dict) else None
    if not isinstance(listed, list) or not listed:
        return [LintFinding(rule, 0, 0, "opa refuses the policy")]
    found: list[LintFinding] = []
    for error in listed[:_MOST_FINDINGS]:
        location = error.get("location") or {}
        line, column = (location.get("row", 0), location.get("col", 1)) if location.get("file") == TEXT_NAME else (0, 0)
        found.append(LintFinding(rule, line, column, str(error.get("message", ""))[:500]))
    return sorted(found, key=lambda each: not each.line)


def opa_message(answer: Any, names: tuple[str, ...] = (TEXT_NAME,)) -> str:
    """The first of OPA's errors, with its place: in the policy, or with its name in another of these files."""
    listed = answer.get("errors") if isinstance(answer, dict) else None
    for error in listed if isinstance(listed, list) else []:
        location = error.get("location") or {}
        if location.get("file") in names:
            other = "" if location["file"] == TEXT_NAME else f"{location['file']}, "
            place = f"{other}line {location.get('row')}, column {location.get('col')}: "
            return f"{place}{str(error.get('message', ''))[:500]}"
    return str(_opa_findings("does-not-compile", answer)[0])


def _rewrite_hint(old: str, new: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "v0", "v1", n=0, lineterm="")
    return (", with these changes:\n" + "\n".join(lines))[:_HINT_LIMIT]


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("-")[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def offered_functions() -> frozenset[str]:
    """Names of the functions that policies may call, for messages and tests."""
    listed = json.loads(CAPABILITIES.read_text(encoding="utf-8"))["builtins"]
    return frozenset(entry["name"] for entry in listed) | builtins.HOST_FUNCTIONS.keys()
