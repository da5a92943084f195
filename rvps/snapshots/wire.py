"""A snapshot as it travels from a provider to brokers.

    {"format":1,"version":<hex>,"valid_until":<RFC 3339>|null,"values":{name: value},"sets":{name: [set]}}

Values and sets are in the one compact form of `rvps.strict_json.encode`, members in this order, without spaces.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.messages import read_time, write_time
from rvps.model import Snapshot
from rvps.remote.http import MAX_ANSWER
from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

NUMBER: Final = "RVPS-Newest-Event"
"""Header of every answer about a snapshot, one without a body too: `rvps.model.Snapshot.number`."""

_FORMAT: Final = 1
_MEMBERS: Final = frozenset({"format", "version", "valid_until", "values", "sets"})
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def write(snapshot: Snapshot) -> bytes:
    """The bytes of one snapshot; equal snapshots have equal bytes."""
    until = "null" if snapshot.valid_until is None else f'"{write_time(snapshot.valid_until)}"'
    head = f'{{"format":{_FORMAT},"version":"{snapshot.version}","valid_until":{until},"values":'
    return b"".join((head.encode(), snapshot.encoded, b',"sets":', snapshot.encoded_sets, b"}"))


def tag_of(body: bytes) -> str:
    """The ETag of a written snapshot."""
    return f'"{sha256(body).hexdigest()}"'


def read(body: bytes) -> Snapshot:
    """Read what `write` writes.

    A hundred thousand values take the strict decoder two seconds, and brokers read them at every change. So they are
    decoded fast first; if writing them again gives the same bytes, there was one reading only.

    Raises:
        ProviderUnavailable: any other form.
    """
    try:
        snapshot = _snapshot(json.loads(body))
        if write(snapshot) == body:
            return snapshot
    except (ValueError, RecursionError, ProviderUnavailable):
        pass  # the strict decoder says what is wrong
    try:
        return _snapshot(decode(body, max_bytes=MAX_ANSWER, max_depth=MAX_DEPTH + 4))
    except NotStrictJson as err:
        raise ProviderUnavailable(f"its snapshot does not read: {err}") from err


def _snapshot(document: Any) -> Snapshot:
    if not isinstance(document, dict) or document.keys() != _MEMBERS:
        raise ProviderUnavailable("its snapshot has other members than this release reads")
    values, sets, version, until = (document[name] for name in ("values", "sets", "version", "valid_until"))
    if type(document["format"]) is not int or document["format"] != _FORMAT:
        raise ProviderUnavailable("its snapshot has another format than this release reads")
    if not isinstance(values, dict) or not isinstance(sets, dict):
        raise ProviderUnavailable("its snapshot has no values by name")
    if not isinstance(version, str) or not _DIGEST.fullmatch(version):
        raise ProviderUnavailable("its snapshot has no version")
    try:
        end = None if until is None else read_time(until, "valid_until")
    except (StatementUnacceptable, TypeError) as err:
        raise ProviderUnavailable("its snapshot ends at no time that can be read") from err
    return Snapshot(version, MappingProxyType(values), encode(values), end, encode(sets))
