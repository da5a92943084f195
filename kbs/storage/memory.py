"""A store that lives and dies with its process: tests, and brokers for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kbs.storage.model import Entry, Record
from kbs.storage.raw import check_expected, encode_meta


@dataclass(slots=True)
class _Slot:
    """One key: the last number given out, and what is kept. Without kept versions the key does not exist."""

    last: int = 0
    kept: dict[int, Record] = field(default_factory=dict)

    @property
    def current(self) -> int:
        return self.last if self.kept else 0


class MemoryStore:
    """`RawStore` in a dictionary. Safe from several threads; every process has its own after a fork."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._changes = 0
        self._lock = threading.Lock()

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The current version, or a past one."""
        with self._lock:
            slot = self._slots.get((namespace, key))
            return slot.kept.get(slot.last if version is None else version) if slot else None

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Write the next version."""
        return self.put_with(namespace, key, lambda _version: bytes(value), meta=meta, expected=expected)

    def put_with(
        self,
        namespace: str,
        key: str,
        make: Callable[[int], bytes],
        *,
        meta: Mapping[str, str],
        expected: int | None = None,
    ) -> int:
        """Write the next version, made for its number."""
        encode_meta(meta)
        with self._lock:
            slot = self._slots.get((namespace, key)) or _Slot()
            check_expected(expected, slot.current)
            version = slot.last + 1
            slot.kept[version] = Record(key, version, dict(meta), make(version))
            slot.last = version
            self._slots[namespace, key] = slot
            self._changes += 1
            return version

    def rewrite(self, namespace: str, key: str, version: int, remake: Callable[[bytes], bytes]) -> bool:
        """Replace the bytes of one version."""
        with self._lock:
            slot = self._slots.get((namespace, key))
            old = slot.kept.get(version) if slot else None
            if slot is None or old is None:
                return False
            slot.kept[version] = Record(key, version, old.meta, remake(old.value))
            self._changes += 1
            return True

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Forget all versions; their numbers are not used again."""
        with self._lock:
            slot = self._slots.get((namespace, key)) or _Slot()
            check_expected(expected, slot.current)
            if not slot.kept:
                return False
            slot.kept.clear()
            self._changes += 1
            return True

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Entry]:
        """Current entries by key, sorted."""
        with self._lock:
            found = [
                slot.kept[slot.last]
                for (space, key), slot in self._slots.items()
                if space == namespace and key.startswith(prefix) and slot.kept
            ]
        return [Entry(r.key, r.version, dict(r.meta)) for r in sorted(found, key=lambda record: record.key)]

    def history(self, namespace: str, key: str) -> Sequence[Entry]:
        """Kept versions, oldest first."""
        with self._lock:
            slot = self._slots.get((namespace, key))
            return [Entry(key, version, dict(r.meta)) for version, r in sorted(slot.kept.items())] if slot else []

    def change_token(self) -> int:
        """Count of changes."""
        return self._changes

    def close(self) -> None:
        """Nothing to release; the content stays."""
