"""The audit log of a data directory, read without its broker. Nothing is verified; `kbs audit verify` does that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kbs import config
from kbs.audit import lines
from kbs.errors import AuditUnavailable


def log_path(data: Path) -> Path:
    """Where the log of a data directory is.

    Raises:
        ConfigInvalid: the settings do not load.
    """
    return data / config.load(data).audit.log


def find(log: Path, decision: str) -> Sequence[Mapping[str, Any]]:
    """All records of one decision, oldest first.

    Raises:
        AuditUnavailable: no log there, or one that does not decode.
    """
    with _readable(log):
        return lines.find(log, decision)


def last(log: Path, count: int) -> Sequence[Mapping[str, Any]]:
    """The last records, oldest first; raises as `find`."""
    with _readable(log):
        return list(deque(lines.records(log), maxlen=count))


@contextmanager
def _readable(log: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise AuditUnavailable(f"no audit log to read: {log}: {err.strerror}") from None
    except ValueError:
        raise AuditUnavailable(f"{log}: a line does not decode; `kbs audit verify` says which") from None
