"""Names that were asked for and not found: the most frequent reason for an unexpected `contraindicated`.

Source: rvps 13.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final

from rvps.messages import MAX_NAME

MAX_NAMES: Final = 1000
"""Names that are counted; the first ones since the start. Whoever may ask for any name fills no memory with it."""


class Misses:
    """Counters by name. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counted: dict[str, int] = {}

    def count(self, names: Iterable[str]) -> None:
        """One more miss of each."""
        with self._lock:
            for name in names:
                if name in self._counted or (len(self._counted) < MAX_NAMES and len(name) <= MAX_NAME):
                    self._counted[name] = self._counted.get(name, 0) + 1

    def counted(self) -> Mapping[str, int]:
        """A copy, the most frequent first."""
        with self._lock:
            return dict(sorted(self._counted.items(), key=lambda counted: (-counted[1], counted[0])))
