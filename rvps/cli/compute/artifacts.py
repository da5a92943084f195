"""Files on the command line: how they are opened, and how what is wrong with them is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from rvps.cli.connection import Failure
from rvps.errors import ArtifactUnusable, StatementUnacceptable

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
MAX_SMALL: Final = 64 << 20  # bytes


@contextmanager
def told(following: str) -> Iterator[None]:
    """What is refused inside becomes one line of what is wrong and one of what to do; exit status 1.

    Raises:
        Failure: for ArtifactUnusable, StatementUnacceptable and OSError.
    """
    try:
        yield
    except (ArtifactUnusable, StatementUnacceptable) as err:
        raise Failure(str(err), following) from err
    except OSError as err:
        raise Failure(
            f"{err.filename or 'a file'} does not read ({err.strerror})", "check its name and rights"
        ) from err


def read_small(path: Path, limit: int = MAX_SMALL) -> bytes:
    """A file as a whole.

    Raises:
        ArtifactUnusable: more than `limit` bytes.
        OSError: it does not read.
    """
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ArtifactUnusable(f"{path.name}: more than {limit} bytes")
    return raw


def by_name(paths: Sequence[Path]) -> dict[str, bytes]:
    """Contents by file name.

    Raises:
        ArtifactUnusable: two files of one name, or a file that is too long.
        OSError: one does not read.
    """
    contents = {path.name: read_small(path) for path in paths}
    if len(contents) != len(paths):
        raise ArtifactUnusable("two files have the same name")
    return contents
