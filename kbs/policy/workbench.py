"""What authors do with a policy before anybody uploads it: run its tests, see what they cover, format, trace.

All of it is the real `opa` in its limits (`opa_command`), over the policy, the library it is compiled with, the
fixtures that come with the package, and the tests' own functions (`json.patch` and the like), but none that reaches
outside.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import re2

from kbs.errors import PolicyUnacceptable
from kbs.policy.compile import decode_text, errors_of, opa_message
from kbs.policy.engine import PolicyKind
from kbs.policy.lint.errors import UNSAFE
from kbs.policy.opa_command import TEXT_NAME, OpaCommand, write_modules
from kbs.policy.outcome import ENTRYPOINTS
from kbs.policy.rego_sources import CAPABILITIES, modules, policies_folder

TESTS_NAME: Final = "policy_test.rego"
_DATA: Final = "data.json"
_FUNCTIONS: Final = "functions.json"
_NOT_FIXTURES: Final = frozenset({"references", "tokens", "claims"})
_MOST_TRACE: Final = 200_000  # characters
MAX_TESTS: Final = 500
"""In one file of tests; the shipped policies have 20 each."""
_TEST_RULE: Final = re.compile(r"^test_", re.MULTILINE)
_SHOWN_FAILURES: Final = 5
_PLACE: Final = re.compile(rf"{re.escape(TEXT_NAME)}:(\d+): ")


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One test. why: empty when it passed."""

    __test__ = False  # pytest collects classes by name

    name: str
    passed: bool
    line: int
    seconds: float
    why: str

    def document(self) -> dict[str, Any]:
        """Members for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Coverage:
    """percent: of the lines with something to evaluate. missed: first and last line of what no test reached."""

    percent: float
    missed: tuple[tuple[int, int], ...]


def fixture_data(folder: Path | None = None) -> dict[str, Any]:
    """The data that tests find: `data.fixtures.<tee>.<variant>`, `data.references.<tee>`, `data.tokens.<tee>.good`, and
    `data.reference_sets.<tee>`: the same reference values as one compound set, of the release `good`.

    Raises:
        OSError: the installation lacks them.
    """
    root = (folder or policies_folder()) / "fixtures"
    read = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*.json"))}
    fixtures = {name: variants for name, variants in read.items() if name not in _NOT_FIXTURES}
    releases = {tee: {**values, "release": "good"} for tee, values in read["references"].items()}
    sets = {tee: {name: [release] for name in release} for tee, release in releases.items()}
    return {
        "fixtures": fixtures,
        "references": read["references"],
        "reference_sets": sets,
        "tokens": read["tokens"],
    }


@dataclass(frozen=True, slots=True)
class Workbench:
    """Runs one `opa`. Methods raise `PolicyUnacceptable` for texts that do not compile, with line and column, and
    `PolicyCompilerMissing` when the program does not run."""

    opa: OpaCommand

    def test(self, kind: PolicyKind, upload: bytes, tests: bytes, *, only: str | None = None) -> list[TestOutcome]:
        """Run Rego tests, `MAX_TESTS` at most, in a package of their own.

        only: a regular expression (RE2) that their names must match.
        """
        if len(_TEST_RULE.findall(decode_text(tests))) > MAX_TESTS:
            raise PolicyUnacceptable(f"the file of tests has more than {MAX_TESTS} of them")
        if only is not None:
            _check_pattern(only)
        with tempfile.TemporaryDirectory() as name:
            done = self._run_tests(Path(name), kind, upload, tests, ["--run", only] if only is not None else [])
            if isinstance(done, dict):
                raise PolicyUnacceptable(opa_message(done, (TEXT_NAME, TESTS_NAME)))
            if own := [each["package"] for each in done if _is_ours(str(each.get("package")))]:
                raise PolicyUnacceptable(f"tests need a package of their own, such as policy_test; theirs is {own[0]}")
            return sorted((_outcome(each) for each in done), key=lambda each: each.line)  # opa runs them side by side

    def require_passing(self, kind: PolicyKind, upload: bytes, tests: bytes) -> int:
        """How many tests there are, all of which pass.

        Raises:
            PolicyUnacceptable: one fails, or there is none; the text names what failed, with its line.
        """
        outcomes = self.test(kind, upload, tests)
        failed = [f"{each.name} (line {each.line}): {each.why}" for each in outcomes if not each.passed]
        if not outcomes:
            raise PolicyUnacceptable("no test ran: the names of tests begin with test_")
        if failed:
            more = f"; and {len(failed) - _SHOWN_FAILURES} more" if len(failed) > _SHOWN_FAILURES else ""
            shown = "; ".join(failed[:_SHOWN_FAILURES])
            raise PolicyUnacceptable(f"{len(failed)} of {len(outcomes)} tests fail: {shown}{more}")
        return len(outcomes)

    def cover(self, kind: PolicyKind, upload: bytes, tests: bytes) -> Coverage:
        """What of a policy its tests reach. A failing test refuses: what it covers proves nothing."""
        outcomes = self.test(kind, upload, tests)
        failed = [outcome.name for outcome in outcomes if not outcome.passed]
        if failed or not outcomes:
            raise PolicyUnacceptable(f"tests fail: {', '.join(failed[:5])}" if failed else "there is no test")
        with tempfile.TemporaryDirectory() as name:
            done = self._run_tests(Path(name), kind, upload, tests, ["--coverage"])
        if not isinstance(done, dict) or "files" not in done:
            raise PolicyUnacceptable("opa gives no coverage for this policy")
        found = done["files"].get(TEXT_NAME, {})
        missed = tuple((each["start"]["row"], each["end"]["row"]) for each in found.get("not_covered", []))
        return Coverage(float(found.get("coverage", 0)), missed)

    def format(self, upload: bytes) -> str:
        """The text as `opa fmt` writes it."""
        text = decode_text(upload)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_modules(folder, {}, text)
            done = self.opa.run(["fmt", TEXT_NAME], folder)
        if done.code != 0:
            raise PolicyUnacceptable(_PLACE.sub(r"line \1: ", done.stderr.replace(f"{folder}/", "").strip())[:500])
        if not done.stdout.strip():  # what comes back replaces a file
            raise PolicyUnacceptable("opa gave no text back; is the program that is configured an opa?")
        return done.stdout.decode("utf-8", "replace")

    def trace(self, kind: PolicyKind, upload: bytes, document: bytes, data: Mapping[str, Any]) -> str:
        """OPA's own trace of one evaluation, cut at 200 000 characters.

        Args:
            document: the wrapper's input, JSON of our own encoder.
            data: `{"kbs": {"reference": …}}` for evidence policies.
        """
        text = decode_text(upload)
        query = "data." + ENTRYPOINTS[kind][0].replace("/", ".")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = write_modules(folder, modules(kind), text)
            (folder / _DATA).write_text(json.dumps(dict(data)), encoding="utf-8")
            loaded = [word for file in (*files, _DATA) for word in ("-d", file)]
            arguments = ["--format", "pretty", "--explain", "full", "--capabilities", str(CAPABILITIES), *loaded]
            done = self.opa.run(["eval", *arguments, "--stdin-input", query], folder, feed=document)
        if done.code != 0:
            raise PolicyUnacceptable(f"opa gives no trace: {(done.stderr or done.stdout.decode())[:500]}")
        return done.stdout.decode("utf-8", "replace")[:_MOST_TRACE]

    def _run_tests(
        self, folder: Path, kind: PolicyKind, upload: bytes, tests: bytes, more: Sequence[str]
    ) -> dict[str, Any] | list[Any]:
        """What `opa test` printed: a list of outcomes, or an object (coverage, or errors)."""
        library = {**modules(kind), **_shared_modules(), TESTS_NAME: decode_text(tests)}
        files = write_modules(folder, library, decode_text(upload))
        for name in (TEXT_NAME, TESTS_NAME):
            self._refuse_schemas(folder, name)
        (folder / _DATA).write_text(json.dumps(fixture_data()), encoding="utf-8")
        (folder / _FUNCTIONS).write_text(self._functions(folder), encoding="utf-8")
        arguments = ["--format", "json", "--capabilities", _FUNCTIONS, *more]
        done = self.opa.run(["test", *arguments, *files, _DATA], folder)
        try:
            answer: Any = json.loads(done.stdout)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict | list):
            return answer
        if done.code == 0:
            return []
        # `opa test` words its errors for people; `opa check` has file, line and column of most of them.
        checked = self.opa.run(["check", "--format", "json", "--capabilities", _FUNCTIONS, *files], folder)
        if checked.code == 0:
            said = (done.stderr or done.stdout.decode("utf-8", "replace")).replace(f"{folder}/", "")
            return {"errors": [{"message": f"the tests do not run: {said.strip()[:300]}"}]}
        return errors_of(checked.stdout, checked.stderr)

    def _refuse_schemas(self, folder: Path, name: str) -> None:
        """Before anything compiles the file: annotations may name schemas, whose `$ref` would be followed into files of
        this machine, and errors quote what is found there."""
        done = self.opa.run(["parse", "--format", "json", name], folder)
        if done.code != 0:
            return  # it compiles nowhere, and what follows says why
        for annotation in done.json().get("annotations") or []:
            if "schemas" in annotation:
                place = f"line {(annotation.get('location') or {}).get('row')}"
                raise PolicyUnacceptable(f"{name}, {place}: annotations must not name schemas")

    def _functions(self, folder: Path) -> str:
        """All functions of this `opa` but those that reach outside: tests may shape their data as they like."""
        every = self.opa.run(["capabilities", "--current"], folder).json()
        kept = [each for each in every["builtins"] if not each["name"].startswith(UNSAFE)]
        return json.dumps({**every, "builtins": kept, "allow_net": []})


def _check_pattern(only: str) -> None:
    """`opa` says nothing of use about a pattern that does not compile."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(only, options)
    except re2.error as err:
        raise PolicyUnacceptable(f"what the names of tests must match is no regular expression: {err}") from None


def _shared_modules() -> dict[str, str]:
    """Rego that the tests of the shipped policies begin with; everybody's may."""
    folder = policies_folder() / "samples"
    return {f"samples/{path.name}": path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rego"))}


def _is_ours(package: str) -> bool:
    """Tests in there could say something else than the policy does, and pass."""
    return package in ("data.policy", "data.kbs", "data.system") or package.startswith(("data.kbs.", "data.system."))


def _outcome(each: Any) -> TestOutcome:
    location = each.get("location") or {}
    error = each.get("error") or {}
    passed = not each.get("fail") and not error and not each.get("skip")
    why = ""
    if error:
        why = str(error.get("message", error) if isinstance(error, dict) else error)[:500]
    elif each.get("skip"):
        why = "skipped"
    elif not passed:
        why = "a condition of it does not hold"
    return TestOutcome(str(each.get("name")), passed, int(location.get("row", 0)), each.get("duration", 0) / 1e9, why)
