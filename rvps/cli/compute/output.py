"""What every `rvps compute` command does with its values: a table for people, a value set document for `rvps sign`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from rvps.cli.connection import Failure, shown
from rvps.errors import StatementUnacceptable
from rvps.value_set import ValueSet, write

_WHOLE_LINES = 400  # columns; what is piped on is searched and cut, so a value stays on one line
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Output:
    """Where a value set goes: `file` if given, else standard output; `as_json`: as its document."""

    as_json: bool
    file: Path | None


def output_options(series: str) -> Callable[[_Command], _Command]:
    """Options `--series` (default `series`), `--json` and `-o`: the command gets `series`, `as_json` and `out`."""

    def decorate(command: _Command) -> _Command:
        options = (
            click.option("--series", default=series, show_default=True, help="The line of releases they belong to."),
            click.option("--json", "as_json", is_flag=True, help="Print the value set document and nothing else."),
            click.option(
                "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the document here."
            ),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def emit(
    make: Callable[[], ValueSet],
    output: Output,
    notes: Sequence[str] = (),
    details: Table | None = None,
) -> None:
    """Show the value set that `make` gives, or write it.

    Args:
        make: builds the set, so that a refusal of its own checks (a bad `--series`) is told like any other.
        notes: what people must know about these values; on standard error where the output is a document.
        details: shown under the values where people look.

    Raises:
        Failure: the set is refused, or the file cannot be written; an older file stays whole.
    """
    try:
        value_set = make()
        document = write(value_set)
    except StatementUnacceptable as err:
        raise Failure(str(err), "give a --series of letters, digits and ._/+- and files with printable names") from err
    if output.file is not None:
        write_whole(output.file, document + b"\n")
    if output.as_json:
        if output.file is None:
            click.echo(document)
    else:
        _show(value_set, details)
        if output.file is not None:
            click.echo(f"Written. Next: rvps sign {shown(str(output.file))} --serial N --key FILE")
    for note in notes:
        click.echo(f"Note: {shown(note)}", err=True)


def _show(value_set: ValueSet, details: Table | None) -> None:
    width = None if sys.stdout.isatty() else _WHOLE_LINES
    console = Console(markup=False, highlight=False, width=width)
    artifacts = Table("artifact", "sha256", box=None)
    for artifact in value_set.artifacts:
        artifacts.add_row(shown(artifact.name), artifact.digest.get("sha256", ""))
    values = Table("name", "value", box=None)
    for name, value in value_set.values.items():
        several = value if isinstance(value, list) else [value]
        for index, each in enumerate(several):
            values.add_row("" if index else name, each if isinstance(each, str) else json.dumps(each))
    for table in (artifacts, values, details):
        if table is not None and table.row_count:
            for column in table.columns:
                column.overflow = "fold"
            console.print(table)
            console.print()


def write_whole(path: Path, document: bytes) -> None:
    """The file is either as it was or complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as err:
        raise Failure(
            f"{path}: cannot be written ({err.strerror})", "name a file in a directory you may write"
        ) from err
