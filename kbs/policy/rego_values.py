"""Rego values between OPA's runtime and host functions: JSON, with sets (`{1,2}`, `set()`) besides.

Reads only what OPA's own runtime prints; refuses what host functions have no use for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH: Final = 64
_SCALARS: Final = json.JSONDecoder()


class ValueRefused(Exception):
    """A value that is too deep, or of a form that no host function takes."""


@dataclass(frozen=True, slots=True)
class RegoSet:
    """A set, its elements in OPA's order."""

    elements: tuple[Any, ...]


def decode(text: str) -> Any:
    """Read one printed value. Objects become dicts, sets become `RegoSet`.

    Raises:
        ValueRefused: deeper than `MAX_DEPTH`, or an object with keys that are not strings.
    """
    value, end = _value(text, 0, 0)
    if end != len(text):
        raise ValueRefused("text after the value")
    return value


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueRefused("a value is nested too deeply for a host function")
    if text.startswith("set()", at):
        return RegoSet(()), at + 5
    opening = text[at : at + 1]
    if opening == "[":
        items, end = _items(text, at + 1, "]", depth)
        return items, end
    if opening == "{":
        return _braces(text, at, depth)
    try:
        return _SCALARS.raw_decode(text, at)
    except ValueError as err:
        raise ValueRefused("a value that is not JSON") from err


def _items(text: str, at: int, closing: str, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while not text.startswith(closing, at):
        item, at = _value(text, at, depth + 1)
        items.append(item)
        at = _past(text, at, ",")
        if at >= len(text):
            raise ValueRefused("a value that does not end")
    return items, at + 1


def _braces(text: str, at: int, depth: int) -> tuple[Any, int]:
    if text.startswith("{}", at):
        return {}, at + 2
    first, end = _value(text, at + 1, depth + 1)
    if not text.startswith(":", end):  # OPA writes no blank before it
        elements, end = _items(text, at + 1, "}", depth)
        return RegoSet(tuple(elements)), end
    members: dict[str, Any] = {}
    key: Any = first
    while True:
        if not isinstance(key, str):
            raise ValueRefused("an object key that is not a string")
        members[key], end = _value(text, _past(text, end, ":"), depth + 1)
        if text.startswith("}", end):
            return members, end + 1
        key, end = _value(text, _past(text, end, ","), depth + 1)
        if not text.startswith(":", end):
            raise ValueRefused("an object member without value")


def _past(text: str, at: int, separator: str) -> int:
    """Where the next value begins; OPA writes one blank behind a separator."""
    at += text.startswith(separator, at)
    return at + text.startswith(" ", at)


def encode(value: Any) -> bytes:
    """Print a host function's answer: JSON values only."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def comparable(value: Any) -> Any:
    """A hashable form under which two values are equal exactly if Rego says so: `true` is not 1, 1.0 is 1."""
    if isinstance(value, bool) or value is None:
        return ("constant", repr(value))
    if isinstance(value, (int, float)):
        return ("number", value)
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, list):
        return ("array", tuple(comparable(item) for item in value))
    if isinstance(value, RegoSet):
        return ("set", frozenset(comparable(item) for item in value.elements))
    return ("object", frozenset((key, comparable(item)) for key, item in value.items()))
