"""What people see: tables and colour on a terminal, JSON with `--json`, errors with the next command to run."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kbs.errors import KbsError
from kbs.storage.private_files import open_private


def console(*, stderr: bool = False) -> Console:
    """A console that knows whether it writes to a terminal; elsewhere lines are as long as they need to be."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 2000, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document for scripts."""
    click_echo(json.dumps(document, indent=2, ensure_ascii=False))


def click_echo(text: str) -> None:
    """A plain line, never wrapped or coloured."""
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table with a header; cells are shown as text: neither markup in them nor control characters work.

    On narrow terminals cells fold; nothing is left out.
    """
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(escape(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else printable(str(cell))) for cell in row))
    console().print(table)


def to_seconds(time: object) -> str:
    """An RFC 3339 time in UTC, as tables show it."""
    return "" if time is None else str(time)[:19].replace("T", " ")


def printable(text: str) -> str:
    """Text of strangers, without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_code(text: str) -> str:
    """The same for program text: tabs and ends of lines stay."""
    return "".join(each if each in "\t\n" else printable(each) for each in text)


def show_code(text: str) -> None:
    """Print a text as it is, or on a terminal without what steers it: a reviewer sees what is there."""
    is_terminal = sys.stdout.isatty()
    click_echo((printable_code(text) if is_terminal else text).removesuffix("\n"))


def done(what: str, text: str) -> None:
    """One line that says what was done."""
    console().print(f"[green]{what}[/] {escape(printable(text))}")


def fail(err: KbsError | str, *, hint: str | None = None) -> None:
    """One line that says what is wrong, and one with what to do."""
    detail = err if isinstance(err, str) else err.operator_detail or str(err)
    out = console(stderr=True)
    out.print(f"[bold red]error:[/] {escape(printable(detail))}")
    if hint is not None:
        out.print(f"[dim]try:[/] {escape(printable(hint))}")


def warn(text: str) -> None:
    """One line on what was done all the same."""
    console(stderr=True).print(f"[yellow]warning:[/] {escape(printable(text))}")


def write_private(path: Path, content: bytes) -> None:
    """Write a secret to a file of mode 0600, whole, in place of an earlier one; devices and pipes are written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)
    os.replace(draft, path)
