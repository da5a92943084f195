"""Stores of the reference implementation, read once: reference values in every form it has written them over time.

| form | where |
|---|---|
| file of `LocalJson` | one JSON object: name to record, each in URL-safe base64 |
| directory of `LocalFs` | one file for each name, `/` written as the four characters backslash, x, 2, F |
| operator's ConfigMap | `reference-values.json`: a list of records, or an object: name to record |

Source: rvps 2.1 and 2.5, attestation-service 5.3.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rvps.errors import StatementUnacceptable
from rvps.messages import check_name, read_time, write_time
from rvps.strict_json import NotStrictJson, decode

MAX_FILE: Final = 16 << 20  # bytes
MAX_RECORD: Final = 1 << 20  # bytes
MAX_RECORDS: Final = 100_000

_SLASH: Final = "\\x2F"
_CONFIG_MAP_MEMBER: Final = "reference-values.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """One record. left_out: why its value is not taken, or None."""

    name: str
    value: Any = field(repr=False)
    expiration: datetime | None
    left_out: str | None


def read(path: Path, at: datetime, *, take_expired: bool = False) -> tuple[Imported, ...]:
    """Every record of a file or directory, by name.

    Args:
        take_expired: also values that had expired at `at`; the reference implementation went on delivering them.

    Raises:
        StatementUnacceptable: not one of the forms above, a record that does not read, or too much of anything.
        OSError: it does not read.
    """
    records = _directory(path) if path.is_dir() else _file(path)
    found: dict[str, Imported] = {}
    for name, record in records:
        if name in found:
            raise StatementUnacceptable(f"{_shown(name)} is there twice")
        found[name] = _imported(name, record, at, take_expired)
        if len(found) > MAX_RECORDS:
            raise StatementUnacceptable(f"more than {MAX_RECORDS} records")
    return tuple(one for _, one in sorted(found.items()))


def values(records: Sequence[Imported]) -> dict[str, Any]:
    """What is taken: name to value."""
    return {one.name: one.value for one in records if one.left_out is None}


def _directory(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for file in sorted(path.iterdir()):
        if not file.is_file() or file.is_symlink():
            raise StatementUnacceptable(f"{_shown(file.name)}: not a plain file; give the folder `reference_value`")
        name = file.name.replace(_SLASH, "/")
        yield name, _record(name, _bytes(file, MAX_RECORD), MAX_RECORD)


def _file(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    document = _decoded(path.name, _bytes(path, MAX_FILE), MAX_FILE)
    data = document.get("data") if isinstance(document, dict) else None
    if isinstance(data, dict) and isinstance(data.get(_CONFIG_MAP_MEMBER), str):
        document = _decoded(_CONFIG_MAP_MEMBER, data[_CONFIG_MAP_MEMBER].encode(), MAX_FILE)
    if isinstance(document, list):
        for number, record in enumerate(document):
            if not isinstance(record, dict) or not isinstance(record.get("name"), str):
                raise StatementUnacceptable(f"record {number} is not an object with a name")
            yield record["name"], record
    elif isinstance(document, dict) and document:
        for name, record in document.items():
            yield name, _record_of_map(name, record)
    else:
        raise StatementUnacceptable("neither an object nor a list of records")


def _record_of_map(name: str, record: object) -> Mapping[str, Any]:
    if isinstance(record, dict):
        return record
    try:
        raw = base64.b64decode(record, altchars=b"-_", validate=True) if isinstance(record, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None:
        raise StatementUnacceptable(
            f"{_shown(name)}: not a record of a store; names with bare values are what messages of type `sample` hold"
        )
    return _record(name, raw, MAX_RECORD)


def _record(name: str, raw: bytes, limit: int) -> Mapping[str, Any]:
    record = _decoded(name, raw, limit)
    if not isinstance(record, dict):
        raise StatementUnacceptable(f"{_shown(name)}: its record is no object")
    if record.get("name", name) != name:
        raise StatementUnacceptable(f"{_shown(name)}: its record has another name")
    return record


def _decoded(what: str, raw: bytes, limit: int) -> Any:
    try:
        return decode(raw, max_bytes=limit)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"{_shown(what)}: {err}") from err


def _imported(name: str, record: Mapping[str, Any], at: datetime, take_expired: bool) -> Imported:
    value, expiration = _value(name, record), _expiration(name, record)
    reason = None
    try:
        check_name(name)
    except StatementUnacceptable as err:
        reason = str(err)
    if value is None or value == []:
        reason = reason or "no value"
    if expiration is not None and expiration <= at and not take_expired:
        reason = reason or f"expired {write_time(expiration)}"
    return Imported(name, value, expiration, reason)


def _value(name: str, record: Mapping[str, Any]) -> Any:
    """The value, or the texts of the hashes that stood in its place until 2025."""
    if "value" in record:
        return record["value"]
    hashes = record.get("hash-value")
    if not isinstance(hashes, list) or not all(
        isinstance(each, dict) and isinstance(each.get("value"), str) for each in hashes
    ):
        raise StatementUnacceptable(f"{_shown(name)}: its record has neither `value` nor a list `hash-value`")
    return [each["value"] for each in hashes]


def _expiration(name: str, record: Mapping[str, Any]) -> datetime | None:
    text = record.get("expiration", record.get("expired"))
    if text is None:
        return None
    if not isinstance(text, str):
        raise StatementUnacceptable(f"{_shown(name)}: its expiration is not text")
    return read_time(text, f"expiration of {_shown(name)}")


def _bytes(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise StatementUnacceptable(f"{_shown(path.name)}: more than {limit} bytes")
    return raw


def _shown(text: str) -> str:
    return "".join(each if each.isprintable() else "\ufffd" for each in text[:100])
