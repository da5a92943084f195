"""What changed between two snapshots, as it travels to brokers that have the older one.

    {"format":1,"valid_until":<RFC 3339>|null,"version":<hex>,"values":{name: value},"removed":[name],"sets":{…}|null}

`values` holds what is new or other, `removed` what is gone, `sets` all compound sets or null where they are as before.
A hundred thousand values are then read once, and each change costs what changed. Source: RFC 3229 (delta encoding).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.messages import read_time, write_time
from rvps.model import Snapshot
from rvps.remote.http import MAX_ANSWER
from rvps.snapshots import wire as snapshot_wire
from rvps.snapshots.members import Members
from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

MANIPULATION: Final = "kbs-reference-values"
"""Name of this form in the headers `A-IM` and `IM`."""

_FORMAT: Final = 1
_MEMBERS: Final = frozenset({"format", "valid_until", "version", "values", "removed", "sets"})


def write(old: Snapshot, new: Snapshot) -> bytes:
    """What turns `old` into `new`. Values that did not change are the same objects in both, or equal ones."""
    missing = object()
    before, after = old.values, new.values
    changed = {name: value for name, value in after.items() if not _same(before.get(name, missing), value)}
    return encode(
        {
            "format": _FORMAT,
            "valid_until": None if new.valid_until is None else write_time(new.valid_until),
            "version": new.version,
            "values": changed,
            "removed": [name for name in before if name not in after],
            "sets": None if old.encoded_sets == new.encoded_sets else decode_sets(new.encoded_sets),
        }
    )


def decode_sets(encoded: bytes) -> Any:
    """The sets of a snapshot, to be written into another document."""
    return decode(encoded, max_bytes=MAX_ANSWER, max_depth=MAX_DEPTH + 4)


class Replica:
    """The newest snapshot with what makes the next one cheap: its values by name, and each of them encoded.

    Not safe from several threads; one thread polls.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._values = dict(snapshot.values)
        self._members = Members.of(self._values)

    def apply(self, body: bytes, tag: str, number: int) -> Snapshot:
        """The snapshot after a delta, which must be octet for octet the one whose ETag is `tag`.

        Raises:
            ProviderUnavailable: it does not read, or leads to anything else. This replica is of no more use then.
        """
        values, removed, sets, version, until = _read(body)
        for name in removed:
            if name not in self._values:
                raise ProviderUnavailable("its delta removes what is not there")
            del self._values[name]
            self._members.remove(name)
        for name, value in values.items():
            self._values[name] = value
            self._members.put(name, encode(value))
        made = Snapshot(
            version,
            MappingProxyType(dict(self._values)),
            self._members.encoded(),
            until,
            self.snapshot.encoded_sets if sets is None else encode(sets),
            number,
        )
        if not hmac.compare_digest(snapshot_wire.tag_of(snapshot_wire.write(made)).encode(), tag.encode()):
            raise ProviderUnavailable("its delta does not lead to the snapshot that its ETag names")
        self.snapshot = made
        return made


def _same(one: object, other: object) -> bool:
    """Whether both are one object, or written alike: `1`, `1.0` and `true` are three values."""
    return one is other or (type(one) is type(other) and one == other and encode(one) == encode(other))


def _read(body: bytes) -> tuple[Mapping[str, Any], list[str], Any, str, datetime | None]:
    try:
        document = decode(body, max_bytes=MAX_ANSWER, max_depth=MAX_DEPTH + 4)
    except NotStrictJson as err:
        raise ProviderUnavailable(f"its delta does not read: {err}") from err
    if not isinstance(document, dict) or document.keys() != _MEMBERS or document["format"] != _FORMAT:
        raise ProviderUnavailable("its delta has another form than this release reads")
    values, removed, sets, version, until = (
        document[m] for m in ("values", "removed", "sets", "version", "valid_until")
    )
    if (
        not isinstance(values, dict)
        or not isinstance(removed, list)
        or not all(isinstance(name, str) for name in removed)
        or not isinstance(sets, dict | None)
        or not isinstance(version, str)
    ):
        raise ProviderUnavailable("its delta has members of other types than this release reads")
    try:
        return values, removed, sets, version, None if until is None else read_time(until, "valid_until")
    except (StatementUnacceptable, TypeError) as err:
        raise ProviderUnavailable("its delta ends at no time that can be read") from err
