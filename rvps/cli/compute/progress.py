"""A bar for work that takes long, where people look; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

_WORTH_IT = 64 << 20  # bytes; less is done before anybody could read it


@contextmanager
def hashing(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Gives a function to be told the bytes of each piece. On standard error, if that is a terminal."""
    if total < _WORTH_IT or not sys.stderr.isatty():
        yield lambda _count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
