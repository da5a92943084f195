"""The broker's own store, sealed at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kbs.storage.model import Entry, KeyValueStore, Record

NAMESPACE: Final = "repository"


class KeyValueBackend:
    """`Backend` in one namespace of the key-value store."""

    remote = False
    creates_once = True

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The current version, or a past one."""
        return self._store.get(NAMESPACE, name, version)

    def put(self, name: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None) -> int:
        """Write the next version."""
        return self._store.put(NAMESPACE, name, value, meta=meta, expected=expected)

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove the values of all versions; numbers go on."""
        return self._store.delete(NAMESPACE, name, expected=expected)

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names and metadata."""
        return self._store.entries(NAMESPACE, prefix)

    def history(self, name: str) -> Sequence[Entry]:
        """Kept versions, oldest first; none after a delete."""
        return self._store.history(NAMESPACE, name)
