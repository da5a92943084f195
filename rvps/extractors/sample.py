"""Messages of type `sample`: a plain JSON object. Nothing in it is signed; whoever sends it vouches for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rvps.errors import StatementUnacceptable
from rvps.strict_json import NotStrictJson, decode

MAX_PAYLOAD: Final = 1 << 20  # bytes after base64


def extract(payload: bytes) -> Mapping[str, Any]:
    """One value per member: name = member name, value = its JSON value unchanged.

    Raises:
        StatementUnacceptable: not a JSON object within the limits of `rvps.strict_json` and 1 MiB.

    Source: rvps 4.1.
    """
    try:
        values = decode(payload, max_bytes=MAX_PAYLOAD)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"sample payload: {err}") from err
    if not isinstance(values, dict):
        raise StatementUnacceptable("sample payload: not a JSON object of names and values")
    return values
