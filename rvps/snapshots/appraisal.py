"""Snapshots made from the view, at the cost of what changed since the last one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from typing import Any

from rvps.json_values import ABSENT
from rvps.model import Snapshot
from rvps.snapshots.members import Members
from rvps.statements.view import View
from rvps.strict_json import encode


class Appraiser:
    """Remembers what each name had at the last moment asked about, and looks again only at names that may differ."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._at: datetime | None = None
        self._values: dict[str, Any] = {}
        self._members = Members()
        self._sets: dict[int, tuple[tuple[str, ...], bytes]] = {}

    def snapshot(self, view: View, at: datetime) -> Snapshot:
        """Every value valid at `at`. Clears `view.touched`."""
        if view is self._view and self._at is not None:
            for number in view.calendar.between(self._at, at):
                view.touched.update(view.entries[number].names)
        else:
            self._values, self._members, self._sets = {}, Members(), {}
            view.touched.update(view.names())
        # Not known again before it is done: an error in between must not leave half of it.
        self._view = None
        self._look_again(view, at)
        view.touched.clear()
        self._view, self._at = view, at
        encoded = self._members.encoded()
        sets = self._encode_sets()
        digest = hashlib.sha256(encoded)
        if self._sets:
            digest.update(b"\0" + sets)
        return Snapshot(
            version=digest.hexdigest(),
            values=MappingProxyType(dict(self._values)),
            encoded=encoded,
            valid_until=view.calendar.around(at)[1],
            encoded_sets=sets,
            number=view.newest,
        )

    def _look_again(self, view: View, at: datetime) -> None:
        members: set[int] = set()
        for name in sorted(view.touched):
            value = view.resolve(name, at).value
            if value is ABSENT:
                if self._values.pop(name, ABSENT) is not ABSENT:
                    self._members.remove(name)
            else:
                self._values[name] = value
                self._members.put(name, encode(value))
            if view.together:
                members.update(view.together.intersection(entry.number for entry in view.speakers(name)))
        for number in [number for number in self._sets if number not in view.together]:
            del self._sets[number]
        for number in members:
            found = view.set_of(number, at)
            if found is None:
                self._sets.pop(number, None)
            else:
                self._sets[number] = (tuple(found), encode(dict(found)))

    def _encode_sets(self) -> bytes:
        by_name: dict[str, list[bytes]] = {}
        for _, (names, encoded) in sorted(self._sets.items(), reverse=True):
            for name in names:
                by_name.setdefault(name, []).append(encoded)
        return b"{" + b",".join(_member(name, by_name[name]) for name in sorted(by_name)) + b"}"


def _member(name: str, sets: Iterable[bytes]) -> bytes:
    return encode(name) + b":[" + b",".join(sets) + b"]"
