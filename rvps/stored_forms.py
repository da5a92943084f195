"""Reference values as other implementations stored them, turned into messages for a fresh registration."""

from __future__ import annotations

import base64
from typing import Any

from rvps.errors import StatementUnacceptable
from rvps.messages import VERSION
from rvps.strict_json import NotStrictJson, decode, encode

_MAX_RECORD = 1 << 20  # bytes


def message_from(record: bytes) -> dict[str, Any]:
    """A message that registers one stored record with the expiration it had.

    Three forms are read: `value` with `expiration` (today), `hash-value` with `expiration` (until June 2025) and
    `hash-value` with `expired` (until November 2024). A `hash-value` becomes the list of its `value` strings, which is
    what policies were given.

    Raises:
        StatementUnacceptable: none of the three.

    Source: rvps 2.1, 2.5.
    """
    try:
        stored = decode(record, max_bytes=_MAX_RECORD)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"stored record: {err}") from err
    if not isinstance(stored, dict):
        raise StatementUnacceptable("stored record: not a JSON object")
    name, expiration = stored.get("name"), stored.get("expiration", stored.get("expired"))
    if not isinstance(name, str) or not isinstance(expiration, str):
        raise StatementUnacceptable("stored record: `name` or `expiration` missing")
    if ("value" in stored) == ("hash-value" in stored):
        raise StatementUnacceptable("stored record: needs either `value` or `hash-value`")
    value = stored["value"] if "value" in stored else _hashes(stored["hash-value"])
    payload = base64.b64encode(encode({name: value})).decode()
    return {"version": VERSION, "type": "sample", "payload": payload, "expiration": expiration}


def _hashes(pairs: Any) -> list[str]:
    texts = (
        [pair.get("value") if isinstance(pair, dict) else None for pair in pairs] if isinstance(pairs, list) else [None]
    )
    found = [text for text in texts if isinstance(text, str)]
    if len(found) != len(texts):
        raise StatementUnacceptable("stored record: `hash-value` is not a list of algorithms and values")
    return found
