"""Tables that cut nothing: folded where people look, whole lines where a program reads."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

_WHOLE_LINES: Final = 4096  # characters


def show(table: Table) -> None:
    """Print it on standard output."""
    for column in table.columns:
        column.overflow = "fold"
    width = None if sys.stdout.isatty() else _WHOLE_LINES
    Console(markup=False, highlight=False, width=width).print(table)
