"""What people see: tables and colour on a terminal, JSON with `--json`, errors with the next command to run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kbs.errors import KbsError


def console(*, stderr: bool = False) -> Console:
    """A console that knows whether it writes to a terminal; elsewhere lines are as long as they need to be."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 200, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document for scripts."""
    click_echo(json.dumps(document, indent=2, ensure_ascii=False))


def click_echo(text: str) -> None:
    """A plain line, never wrapped or coloured."""
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table with a header; cells are shown as text, markup in them is not interpreted."""
    table = Table(*columns, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    console().print(table)


def fail(err: KbsError | str, *, hint: str | None = None) -> None:
    """One line that says what is wrong, and one with what to do."""
    detail = err if isinstance(err, str) else err.operator_detail or str(err)
    out = console(stderr=True)
    out.print(f"[bold red]error:[/] {escape(detail)}")
    if hint is not None:
        out.print(f"[dim]try:[/] {escape(hint)}")
