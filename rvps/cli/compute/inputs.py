"""What `rvps compute` takes: artifacts, hashed as they are read, and options, checked as they are read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from rvps.cli.compute.artifacts import FILE
from rvps.cli.compute.progress import hashing
from rvps.cli.connection import Failure, shown
from rvps.compute.binary import digests_of, read_whole
from rvps.errors import ArtifactUnusable, StatementUnacceptable
from rvps.value_set import Artifact

__all__ = ["FILE", "Counts", "Digest", "Hex", "Size", "hash_artifact", "read_artifact", "refusals"]

_UNITS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}
_SIZE: Final = re.compile(r"([1-9][0-9]{0,11})([KMGT])(?:iB|B)?", re.ASCII)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}", re.ASCII)
_RANGE: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


class Size(click.ParamType[int]):
    """Bytes with a unit: `2048M`, `2G`, `512MiB`. A bare number is refused: QEMU takes MiB, other tools bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _SIZE.fullmatch(str(value))
        if found is None:
            self.fail("give a number and a unit, such as 2048M or 2G", param, ctx)
        return int(found[1]) << _UNITS[found[2]]


class Hex(click.ParamType[int]):
    """A number in hexadecimal, with its 0x, so that nobody has to guess."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not isinstance(value, int) and not _NUMBER.fullmatch(str(value)):
            self.fail("give a hexadecimal number with 0x, such as 0x1", param, ctx)
        return value if isinstance(value, int) else int(value, 16)


class Digest(click.ParamType[bytes]):
    """`size` bytes as hex."""

    name = "digest"

    def __init__(self, size: int) -> None:
        self.size = size

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            found = bytes.fromhex(value)
        except ValueError:
            found = b""
        if len(found) != self.size:
            self.fail(f"give {2 * self.size} hexadecimal digits", param, ctx)
        return found


class Counts(click.ParamType[tuple[int, ...]]):
    """Numbers and ranges, `1,2,4-8`, in that order, each once, from 1 to `most`."""

    name = "numbers"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        counts: dict[int, None] = {}
        for part in str(value)[:10_000].split(","):
            found = _RANGE.fullmatch(part.strip())
            first = int(found[1]) if found else 0
            last = int(found[2]) if found and found[2] else first
            if not 0 < first <= last <= self.most:
                self.fail(f"give numbers from 1 to {self.most}, such as 1,2,4 or 1-8", param, ctx)
            counts |= dict.fromkeys(range(first, last + 1))
        return tuple(counts)


@contextmanager
def refusals(following: str = "give the file as it is built, and check that it was copied whole") -> Iterator[None]:
    """Errors of artifacts end with status 1 and `following`, settings that no machine has with status 2."""
    try:
        yield
    except ArtifactUnusable as err:
        raise Failure(str(err), following) from err
    except StatementUnacceptable as err:
        raise Failure(str(err), "rename the file: artifacts are listed by name") from err
    except OSError as err:
        raise Failure(f"{err.filename}: does not read ({err.strerror})", "check its name and permissions") from err
    except ValueError as err:
        raise click.UsageError(str(err)) from err


def read_artifact(path: Path, limit: int, what: str) -> tuple[bytes, Artifact]:
    """A file of at most `limit` bytes, and how it is listed.

    Raises:
        ArtifactUnusable: longer, or empty.
    """
    with path.open("rb") as file:
        raw = read_whole(file, limit, what)
    return raw, Artifact(path.name, {"sha256": hashlib.sha256(raw).hexdigest()})


def hash_artifact(path: Path, algorithms: Sequence[str]) -> tuple[dict[str, bytes], int, Artifact]:
    """Digests and size of a file of any size, and how it is listed. Shows a bar to people who would wait."""
    with path.open("rb") as file, hashing(path.stat().st_size, shown(path.name)) as progress:
        digests, size = digests_of(file, tuple({"sha256", *algorithms}), progress)
    return digests, size, Artifact(path.name, {"sha256": digests["sha256"].hex()})
