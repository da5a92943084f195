"""The back-end port of plugin `resource`: where secrets are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kbs.clock import Clock
from kbs.storage.model import Entry, Record


class StoreRefuses(Exception):
    """The store answers, and does not let this broker do it, or has there what is no resource.

    `str(err)` is for operators only: to a guest such a name is one that does not exist.
    """


class Backend(Protocol):
    """Secrets by name. Safe from several threads.

    Names are `repository/type/tag`, already through the grammar of kbs-protocol 1.4: nothing a peer sent gets here
    otherwise. version 0 in entries and records: the store keeps no numbers.

    Raises:
        StorageUnavailable: down, too slow, or answers garbage. StoreRefuses: see there.
        VersionConflict: a lost compare-and-set. MalformedMessage: this kind of store cannot do what was asked.
    """

    remote: bool
    """Whether calls wait for something outside this process."""
    creates_once: bool
    """Whether `put(expected=0)` has exactly one winner, whoever races."""

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The current version, or a past one."""

    def put(self, name: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None) -> int:
        """Write the next version; its number. expected: which must be current (0: none); None: whichever is."""

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove all versions; False if there were none."""

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names and metadata, sorted. Numbers may be 0 where telling them would take a question for each name."""

    def history(self, name: str) -> Sequence[Entry]:
        """Kept versions, oldest first."""


@dataclass(frozen=True, slots=True)
class StoreContext:
    """What the builder of a back end gets. options: its table without `prefix` and `type`, not yet checked.

    data: folder that relative paths are under. where: how its settings are called in error texts. ticks: seconds of
    any monotonic clock.
    """

    prefix: str
    options: Mapping[str, Any]
    data: Path
    where: str
    clock: Clock
    ticks: Callable[[], float]
