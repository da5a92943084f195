"""What the tools for policy authors share: which files, of which kind, and with which `opa`."""

from __future__ import annotations

import re
import shutil
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from kbs.clock import system_clock
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from kbs.policy.wasm import nanoseconds
from kbs.policy.workbench import Workbench

TESTS: Final = "_test.rego"
_RESULTS: Final = {
    PolicyKind.EVIDENCE: re.compile(rb"^\s*(?:default\s+)?trust_claims\b", re.MULTILINE),
    PolicyKind.RESOURCE: re.compile(rb"^\s*(?:default\s+)?allow\b", re.MULTILINE),
}
PATH: Final = click.argument("path", type=click.Path(exists=True, path_type=Path))


def rewrite(path: Path, text: str) -> None:
    """Replace a file of the author's, as a whole or not at all; a link stays one, and what it points at changes.

    Raises:
        OSError: it cannot be written; the old text is still there.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    draft = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        shutil.copymode(target, draft)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy of an author. tests: the `_test.rego` beside it, where there is one."""

    path: Path
    kind: PolicyKind
    text: bytes

    @property
    def tests(self) -> Path | None:
        """The file with its tests."""
        beside = self.path.with_name(self.path.stem + TESTS)
        return beside if beside.is_file() else None

    def tests_text(self) -> bytes | None:
        """What is in it."""
        return None if self.tests is None else self.tests.read_bytes()


def tool_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--kind`, `--opa` and `--json`."""
    options = (
        click.option(
            "--kind",
            type=click.Choice([kind.value for kind in PolicyKind]),
            help="What the policy decides. Default: evidence if it has trust_claims, resource if it has allow.",
        ),
        click.option(
            "--opa",
            "opa",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The opa program. Default: the one on the search path.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def compiler(opa: Path | None) -> Compiler:
    """With the program that was named, else the one that is found; without one it refuses, saying how to get it."""
    return Compiler(opa or _found(), nanoseconds(system_clock))


def workbench(opa: Path | None) -> Workbench:
    """The same, for tests and traces.

    Raises:
        PolicyCompilerMissing: there is no `opa`.
    """
    return Workbench(compiler(opa).opa())


def _found() -> Path | None:
    beside = Path(sysconfig.get_path("scripts")) / "opa"
    found = shutil.which("opa") or (str(beside) if beside.is_file() else None)
    return None if found is None else Path(found)


def policy_files(path: Path, kind: str | None) -> list[PolicyFile]:
    """The policy at a path, or every one below a folder; of tests, the policy that they test.

    Raises:
        UsageError: there is none, or one whose kind cannot be told.
    """
    if path.is_dir():
        found = [each for each in sorted(path.rglob("*.rego")) if not each.name.endswith(TESTS)]
        found = [each for each in found if kind is not None or _kinds(each.read_bytes())]
    else:
        found = [path.with_name(path.name.removesuffix(TESTS) + ".rego")] if path.name.endswith(TESTS) else [path]
    if not found:
        raise click.UsageError(f"{path}: no policies")
    return [_read(each, kind) for each in found]


def _read(path: Path, kind: str | None) -> PolicyFile:
    text = path.read_bytes()
    if kind is not None:
        return PolicyFile(path, PolicyKind(kind), text)
    kinds = _kinds(text)
    if len(kinds) != 1:
        raise click.UsageError(f"{path}: say --kind evidence or --kind resource")
    return PolicyFile(path, kinds[0], text)


def _kinds(text: bytes) -> list[PolicyKind]:
    return [kind for kind, result in _RESULTS.items() if result.search(text)]
