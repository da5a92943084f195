"""When two reference values are the same, and what is left of one when known bad ones are taken out."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Final

from rvps.strict_json import encode


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""No value, as opposed to a value of null."""


def same_as(value: Any) -> bytes:
    """Equal for two values exactly if they are equal as JSON: `1` and `1.0` are, `1` and `true` are not.

    Source: RFC 8259 6: a number has no type; Rego compares them alike.
    """
    return encode(_plain(value))


def without(value: Any, bad: Container[bytes]) -> Any:
    """`value` less what `bad` (of `same_as`) holds: members are taken out of a list; `ABSENT` if nothing is left."""
    if same_as(value) in bad:
        return ABSENT
    if not isinstance(value, list):
        return value
    kept = [member for member in value if same_as(member) not in bad]
    if len(kept) == len(value):
        return value
    return kept or ABSENT


def united(values: Sequence[Any]) -> Any:
    """One value of several, newest first: lists are united without repetition, of anything else the newest counts."""
    newest = values[0]
    if len(values) == 1 or not isinstance(newest, list):
        return newest
    found = {same_as(member): member for value in reversed(values) if isinstance(value, list) for member in value}
    return list(found.values())


def holds(value: Any, wanted: Any) -> bool:
    """Whether `wanted` is `value` or a member of it."""
    key = same_as(wanted)
    return same_as(value) == key or (isinstance(value, list) and any(same_as(member) == key for member in value))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return value
