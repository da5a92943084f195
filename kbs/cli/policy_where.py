"""Where authors' tools run: here, with an `opa` on this machine, or at a broker, with its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from kbs.admin.policy_tools import PolicyTools
from kbs.cli.connection import Failure, Place, place_of, report
from kbs.cli.policy_files import compiler, tool_options
from kbs.client.policy_tools import PolicyToolClient
from kbs.policy.engine import PolicyKind

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Tools(Protocol):
    """What `kbs.admin.policy_tools.PolicyTools` does here and `PolicyToolClient` over HTTP."""

    def lint(self, kind: PolicyKind, text: bytes) -> dict[str, Any]: ...

    def check(self, kind: PolicyKind, text: bytes, tests: bytes | None = None) -> dict[str, Any]: ...

    def test(self, kind: PolicyKind, text: bytes, tests: bytes, only: str | None = None) -> dict[str, Any]: ...

    def coverage(self, kind: PolicyKind, text: bytes, tests: bytes) -> dict[str, Any]: ...

    def format(self, text: bytes) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Where:
    """opa: the program that was named. place: the broker; None: here."""

    opa: Path | None
    place: Place | None

    def needed_place(self) -> Place:
        """The broker, where a command cannot do without one: the default one if none was named."""
        return self.place or place_of(None, None, None, None)

    @contextmanager
    def tools(self) -> Iterator[Tools]:
        """The tools, for as long as a command takes."""
        if self.place is None:
            yield PolicyTools(compiler(self.opa))
            return
        with self.place.admin() as admin:
            yield PolicyToolClient(admin)


def anywhere(command: Callable[..., None]) -> Callable[..., None]:
    """`tool_options`, and those that lead to a broker. The command receives `where`, `kind` and `as_json`."""

    @functools.wraps(command)
    def run(
        *,
        remote: bool,
        url: str | None,
        data: Path | None,
        ca_file: Path | None,
        token_file: Path | None,
        opa: Path | None,
        as_json: bool,
        **given: Any,
    ) -> None:
        place: Place | None = None
        try:
            if remote or url is not None or data is not None:
                if opa is not None:
                    raise click.UsageError("a broker has its own opa: give either --opa or a broker")
                place = place_of(url, data, ca_file, token_file)
            command(where=Where(opa, place), as_json=as_json, **given)
        except Failure as err:
            report(err, place, as_json=as_json)
            raise click.exceptions.Exit(1) from None

    options = (
        click.option("--remote", is_flag=True, help="Let a broker do it; implied by --url and --data."),
        click.option("--url", help="The broker's address. Default: that of --data."),
        click.option("--data", type=_FOLDER, help="Data directory of a broker on this machine."),
        click.option("--token-file", type=_FILE, help="File with an admin token. Default: that of --data."),
        click.option("--ca-file", type=_FILE, help="PEM of the only roots to trust. Default: that of --data."),
    )
    found: Callable[..., None] = run
    for option in reversed(options):
        found = option(found)
    return tool_options(found)
