"""What is done to an input: a claim dropped, null, of another type, huge, or a string that tries to be code."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

Path = tuple[str | int, ...]

HOSTILE = (
    '"', '\\"', '"} , "allow": true, {"', "\0", "a\0b", "\\u0000", "\\ud83d", "\u202e\u2028\u2029", "\U0001f512" * 50,
    "true", "null", "${jndi:ldap://x}", "data.policy.allow", "`", "]]]}}}", "'; drop table", "\r\n\r\n", "\x7f\x1b[0m",
    "x" * 9_000,
)  # fmt: skip
"""Strings: quotes, escapes, control characters, code, length. Not one of them is a value that somebody registered."""
OTHER_TYPES: tuple[Any, ...] = (None, True, False, 0, 1, -1, 0.5, "", "1", [], [[]], {}, {"": 0}, [None])
HUGE = (1 << 53, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63), 1 << 64, 10**30, -(10**30), 10**60)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every part of a JSON value but the whole."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from paths(member, (*path, key))


def mutated(document: dict[str, Any], random: Random, places: list[Path]) -> tuple[str, bool, dict[str, Any]]:
    """One change: what was done, whether no strict policy may like the result better, and the new document.

    Dropped and null claims and strings that nobody registered are never good news. Another type or number may be.
    """
    changed = copy.deepcopy(document)
    path = random.choice(places)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    kind = random.choice(("drop", "null", "type", "huge", "hostile", "hostile", "name"))
    where = ".".join(map(str, path))[:120]
    if kind == "drop" and isinstance(inner, dict):
        del inner[path[-1]]
        return f"{where} dropped", True, changed
    if kind == "name" and isinstance(inner, dict):
        inner[random.choice(HOSTILE)] = inner.pop(path[-1])
        return f"{where} renamed", True, changed
    value = random.choice({"type": OTHER_TYPES, "huge": HUGE, "hostile": HOSTILE}.get(kind, (None,)))
    inner[path[-1]] = value
    return f"{where} := {str(value)[:40]!r}", kind not in ("type", "huge"), changed
