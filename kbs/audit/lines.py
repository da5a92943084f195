"""One record, one line: how an event becomes bytes, and how bytes are read back.

A line is a JSON object in ASCII without a newline in it: `n` (0 for the first), `time` (RFC 3339, UTC, microseconds),
the event's members, and last `prev`: SHA-256 of the bytes of the line before, without newline, in hex.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from kbs.audit.events import Event

MAX_LINE: Final = 64 << 10  # octets, newline excluded
NO_PREV: Final = "0" * 64
"""`prev` of the first line."""
_ENVELOPE_SIZE: Final = 256  # octets, room for n, time and prev
_CUT_FLOOR: Final = 1024  # octets; shorter members are never cut
_KEPT_TEXT: Final = 256  # characters of a cut text that stay readable
_PREV_SIZE: Final = len(b',"prev":""}') + 64  # octets of the end of each line
_UTC: Final = "+00:00"
_CHUNK: Final = 1 << 20  # octets read at a time


def _plain(value: object) -> object:
    """Turn what JSON lacks into what it has; secrets and raw bytes are refused (called for unknown types only)."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"an audit record cannot hold a {type(value).__name__}")


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plain).encode
_encode_utf8 = msgspec.json.Encoder().encode
_LEAVES: Final = frozenset({str, int, bool, type(None)})
_MANY: Final = 500  # values; ordinary events hold some thirty


def encode_event(event: Event) -> bytes:
    """The event's members as JSON, braces stripped, at most `MAX_LINE` less what the line adds.

    Members that make the line too long are cut, the longest first: a text keeps its beginning, anything else becomes
    an object; both name the SHA-256 and the size of the JSON that stood there.

    Raises:
        TypeError: a member that is no JSON value: a Secret, bytes, NaN, or a name that the line itself uses.
    """
    members = event.members()
    if "n" in members or "time" in members or "prev" in members:
        raise TypeError(f"{event.kind} has a member named n, time or prev")
    body = _json(members)
    if len(body) > MAX_LINE - _ENVELOPE_SIZE:
        body = _json(_cut(members))
    return body[1:-1]


def _json(value: object) -> bytes:
    """In ASCII, with control characters escaped."""
    quick = _quick_json(value)
    if quick is not None:
        return quick
    try:
        # the encoder escapes all control characters but DEL; as text is ASCII here, DEL stands only inside strings
        return _encode(value).encode("ascii").replace(b"\x7f", b"\\u007f")
    except ValueError as err:
        raise TypeError("an audit record holds finite numbers and no cycles") from err


def _quick_json(value: object) -> bytes | None:
    """The same octets at a fraction of the time for ordinary values, which nearly all are; None for others."""
    try:
        found = _encode_utf8(value) if _is_ordinary(value) else b"\x7f"
    except (ValueError, RecursionError):  # a lone surrogate, a number of thousands of digits
        return None
    return found if found.isascii() and b"\x7f" not in found else None


def _is_ordinary(value: Any) -> bool:
    """Whether it holds nothing but those types, none subclassed, of which both encoders say the same.

    The quick one also writes bytes, sets, times and NaN in some form; the other refuses them.
    """
    found: list[Any] = [value]
    for each in found:  # grows meanwhile
        kind = type(each)
        if kind in _LEAVES:
            continue
        if len(found) > _MANY:
            return False
        if kind is dict:
            for name in each:
                if type(name) is not str:
                    return False
            found += each.values()
        elif kind is list or kind is tuple:
            found += each
        else:
            return False
    return True


def _cut(members: Mapping[str, Any]) -> dict[str, Any]:
    encoded = {name: _json(value) for name, value in members.items()}
    kept = dict(members)
    size = sum(len(name) + len(text) + 4 for name, text in encoded.items())
    for name in sorted(encoded, key=lambda name: len(encoded[name]), reverse=True):
        text = encoded[name]
        if size <= MAX_LINE - _ENVELOPE_SIZE or len(text) <= _CUT_FLOOR:
            break
        digest = sha256(text).hexdigest()
        value = members[name]
        if isinstance(value, str):
            kept[name] = f"{value[:_KEPT_TEXT]}… [cut: {len(text)} octets, SHA-256 {digest}]"
        else:
            kept[name] = {"cut_octets": len(text), "sha256": digest}
        size -= len(text) - len(_json(kept[name]))
    return kept


def encode_line(n: int, time: bytes, body: bytes, prev: str) -> bytes:
    """The line for an encoded event, without newline. time: as `timestamp` gives it, which lines of a batch share."""
    return b'{"n":%d,"time":"%s",%s,"prev":"%s"}' % (n, time, body, prev.encode("ascii"))


def timestamp(at: datetime) -> bytes:
    """RFC 3339 in UTC with microseconds.

    Raises:
        ValueError: not in UTC, or without a zone.
    """
    text = at.isoformat(timespec="microseconds")
    if not text.endswith(_UTC):
        raise ValueError("audit time is UTC")
    return text.removesuffix(_UTC).encode("ascii") + b"Z"


def prev_of(line: bytes) -> str | None:
    """`prev` as the end of the line carries it, read without parsing; None if the line does not end that way."""
    tail = line[-_PREV_SIZE:]
    if len(tail) != _PREV_SIZE or not tail.startswith(b',"prev":"') or not tail.endswith(b'"}'):
        return None
    return tail[9:-2].decode("ascii", "replace")


def line_digest(line: bytes) -> str:
    """What the next line carries as `prev`."""
    return sha256(line).hexdigest()


def complete_lines(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Lines of a file between two offsets, newlines stripped; what follows the last newline is left out."""
    rest = b""
    while start < end:
        chunk = os.pread(descriptor, min(_CHUNK, end - start), start)
        if not chunk:
            return
        start += len(chunk)
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield from lines


def records(path: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """Records from number `start` on, as they stand in the file; nothing is verified.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no JSON object.
    """
    for index, line in enumerate(whole_lines(path)):
        if index >= start:
            yield record(line)


def find(path: Path, decision: str) -> list[dict[str, Any]]:
    """All records of one decision, oldest first; raises as `records`."""
    found = (record(line) for line in whole_lines(path) if is_of(line, decision))
    return [each for each in found if each.get("decision") == decision]


def is_of(line: bytes, decision: str) -> bool:
    """Whether a line can be of this decision; a text inside another member may look the same."""
    return b'"decision":' + _json(decision) in line


def is_kind(line: bytes, kind: str) -> bool:
    """Whether a line is of this kind, which stands right after number and time."""
    return line.find(b',"kind":' + _json(kind) + b",", 0, _ENVELOPE_SIZE) > 0


def whole_lines(path: Path) -> Iterator[bytes]:
    """The complete lines that are there now, newlines stripped; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield from complete_lines(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def record(line: bytes) -> dict[str, Any]:
    """One line as an object; raises ValueError if it is none."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a line of the audit log is no object")
    return found
