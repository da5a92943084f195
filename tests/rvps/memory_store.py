"""A store in memory that keeps the broker's storage contract, with faults on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class Conflict(Exception):
    """A compare-and-set that lost."""


class Unavailable(Exception):
    """The store is down."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one key."""

    key: str
    version: int
    value: bytes


class MemoryStore:
    """Versions count up for ever, also across a delete.

    `before_put` runs before each write; `down` fails every call.
    """

    def __init__(self) -> None:
        self.current: dict[tuple[str, str], Stored] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.changes = 0
        self.calls: list[str] = []
        self.down = False
        self.before_put: Callable[[str, str], None] | None = None

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise Unavailable

    def get(self, namespace: str, key: str, version: int | None = None) -> Stored | None:
        self._enter("get")
        assert version is None
        return self.current.get((namespace, key))

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        assert all(isinstance(text, str) for pair in meta.items() for text in pair)
        if self.before_put is not None:
            self.before_put(namespace, key)
        self._enter("put")
        found = self.current.get((namespace, key))
        if expected is not None and expected != (found.version if found else 0):
            raise Conflict
        version = self.versions.get((namespace, key), 0) + 1
        self.versions[namespace, key] = version
        self.current[namespace, key] = Stored(key, version, value)
        self.changes += 1
        return version

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        self._enter("delete")
        found = self.current.get((namespace, key))
        if expected is not None and expected != (found.version if found else 0):
            raise Conflict
        self.changes += 1
        return self.current.pop((namespace, key), None) is not None

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Stored]:
        self._enter("entries")
        return sorted(
            (stored for (where, key), stored in self.current.items() if where == namespace and key.startswith(prefix)),
            key=lambda stored: stored.key,
        )

    def change_token(self) -> int:
        if self.down:
            raise Unavailable
        return self.changes

    def statements(self) -> list[str]:
        """Keys of the statements that are stored."""
        return [stored.key for stored in self.entries("rvps-statements")]
