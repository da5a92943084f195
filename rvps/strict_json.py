"""JSON as reference values arrive and are stored: one reading only, bounded before anybody looks at it."""

from __future__ import annotations

import json
import math
from typing import Any, Final

MAX_DEPTH: Final = 64
MAX_NUMBER_DIGITS: Final = 64
MAX_TOKENS: Final = 50_000
"""For what strangers send: an empty list costs three bytes to send and sixty to hold."""


_COMPACT: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class NotStrictJson(ValueError):
    """The bytes are not JSON, or not JSON that every reader reads alike. The text is safe to show the peer."""


def decode(raw: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH, max_tokens: int | None = None) -> Any:
    """Decode UTF-8 JSON.

    Refused beside what is no JSON at all: more than `max_bytes`, more than `max_depth` nested containers, a repeated
    member, NaN and infinities (also by overflow, as 1e999), longer numbers than `MAX_NUMBER_DIGITS`, lone surrogates.

    Args:
        max_tokens: most commas and opening brackets, those in strings counted too; looked at before anything is built.

    Raises:
        NotStrictJson: any of these.

    Source: RFC 8259; RFC 7493 (I-JSON) for what readers disagree about.
    """
    if len(raw) > max_bytes:
        raise NotStrictJson(f"more than {max_bytes} bytes")
    if max_tokens is not None and sum(map(raw.count, (b",", b"[", b"{"))) > max_tokens:
        raise NotStrictJson(f"more than {max_tokens} members")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except UnicodeDecodeError as err:
        raise NotStrictJson("not UTF-8") from err
    except RecursionError as err:
        raise NotStrictJson(f"nested deeper than {max_depth}") from err
    except json.JSONDecodeError as err:
        raise NotStrictJson(f"not JSON at character {err.pos}") from err
    _check_depth(value, max_depth)
    if b"\\u" in raw:  # nothing else makes one: UTF-8 has none
        try:
            encode(value)
        except UnicodeEncodeError as err:
            raise NotStrictJson("a string holds a lone surrogate") from err
    return value


def encode(value: Any) -> bytes:
    """The one compact form used for storing, delivering and digesting: members sorted at every level, UTF-8."""
    return _COMPACT.encode(value).encode("utf-8")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJson("a member is repeated")
    return members


def _refuse_constant(_text: str) -> Any:
    raise NotStrictJson("NaN and Infinity are not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_NUMBER_DIGITS:
        raise NotStrictJson(f"a number of more than {MAX_NUMBER_DIGITS} digits")
    return int(text)


def _finite_float(text: str) -> float:
    if len(text) > MAX_NUMBER_DIGITS:
        raise NotStrictJson(f"a number of more than {MAX_NUMBER_DIGITS} digits")
    number = float(text)
    if not math.isfinite(number):
        raise NotStrictJson("a number out of range")
    return number


def _check_depth(value: Any, max_depth: int) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise NotStrictJson(f"nested deeper than {max_depth}")
