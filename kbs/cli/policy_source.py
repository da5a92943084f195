"""Where a command gets the text of a policy from: a file, or by name from those that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import click

from kbs.cli.policy_files import TESTS
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.shipped import Shipped

KIND: Final = click.Choice([kind.value for kind in PolicyKind])


def text_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--file`, `--shipped`, `--tests`, `--no-tests`, `--reason` and `--expected`."""
    options = (
        click.option("--file", "file", type=click.File("rb"), help="File with Rego v1; - for stdin."),
        click.option(
            "--shipped",
            "--well-known",
            "shipped",
            metavar="NAME",
            help="A text that comes with kbs. Wrong names list all.",
        ),
        click.option(
            "--tests", "tests", type=click.File("rb"), help="Its tests. Default: NAME_test.rego beside NAME.rego."
        ),
        click.option("--no-tests", is_flag=True, help="Leave the tests beside the file alone."),
        click.option("--reason", help="Why; kept in the history."),
        click.option("--expected", type=click.IntRange(min=0), help="Only if this version is the active one."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Source:
    """A text and what to call it. tests: those that go with it."""

    text: bytes
    name: str
    tests: bytes | None = None

    @property
    def words(self) -> str:
        """For people."""
        return self.name if self.tests is None else f"{self.name} with its tests"


def chosen(
    kind: PolicyKind, file: BinaryIO | None, shipped: str | None, tests: BinaryIO | None, *, no_tests: bool
) -> Source:
    """The text that was named, with the tests that were, or those beside it."""
    known = Shipped.load()
    if tests is not None and no_tests:
        raise click.UsageError("give --tests or --no-tests, not both")
    if file is not None and shipped is None:
        text, name = file.read(), getattr(file, "name", "<stdin>")
        if tests is not None:
            return Source(text, name, tests.read())
        # shipped texts were tested when they were built, and need no opa
        wanted = not no_tests and known.recognise(kind, text) is None
        return Source(text, name, _beside(name) if wanted else None)
    if file is not None or shipped is None:
        raise click.UsageError("give either --file or --shipped")
    prefix = f"{kind.value}/"
    name = prefix + shipped.removeprefix(prefix)
    if name not in known.names():
        names = ", ".join(each.removeprefix(prefix) for each in known.names() if each.startswith(prefix))
        raise click.UsageError(f"--shipped is one of: {names}")
    return Source(known.policy(name).text.encode(), f"shipped {name}", None if tests is None else tests.read())


def _beside(name: str) -> bytes | None:
    path = Path(name)
    tests = path.with_name(path.stem + TESTS)
    return tests.read_bytes() if path.suffix == ".rego" and tests.is_file() else None


def shipped_policy(name: str, kind: str | None) -> Policy:
    """One that comes with the package, by its whole name or without its kind."""
    known = Shipped.load()
    kinds = [kind] if kind is not None else [each.value for each in PolicyKind]
    found = [each for each in (name, *(f"{each}/{name}" for each in kinds)) if each in known.names()]
    if len(found) != 1:
        raise click.UsageError(f"{name}: no such file or shipped policy; kbs policy shipped lists them")
    return known.policy(found[0])


def named_text(name: str, kind: str | None) -> bytes:
    """The text of a file, or of a policy that comes with the package."""
    path = Path(name)
    return path.read_bytes() if path.is_file() else shipped_policy(name, kind).text.encode()
