"""What differs between two documents: by entry, settings by their values, and texts by their lines."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kbs.initdata.document import AA, CDH, Document

_MAX_LINES: Final = 4000  # of a policy: the comparison of longer ones takes minutes, and nobody reads it
_MAX_CELL: Final = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One place. entry: `document` or a name. path: of a setting, else empty. before, after: None where it is absent.

    lines: of texts, as `diff -u` writes them without its head; before and after are then None.
    """

    entry: str
    path: str
    before: str | None
    after: str | None
    lines: tuple[str, ...] = ()


def compare(one: Document, other: Document) -> Sequence[Difference]:
    """Everything that differs, in the order of the entries. Nothing for documents of the same octets; documents whose
    entries agree and whose octets do not are told so."""
    if one.raw == other.raw:
        return ()
    found = [
        Difference("document", name, str(before), str(after))
        for name, before, after in (
            ("version", one.version, other.version),
            ("algorithm", one.algorithm, other.algorithm),
        )
        if before != after
    ]
    names = dict.fromkeys((*one.data, *other.data))
    for name in names:
        found += _entry(name, one.data.get(name), other.data.get(name))
    return found or (Difference("document", "layout", "", "", _lines(one.text, other.text)),)


def _entry(name: str, before: str | None, after: str | None) -> Iterator[Difference]:
    if before == after:
        return
    if name in (AA, CDH) and before is not None and after is not None:
        settings = _settings(before), _settings(after)
        if settings[0] is not None and settings[1] is not None and settings[0] != settings[1]:
            for path in dict.fromkeys((*settings[0], *settings[1])):
                values = settings[0].get(path), settings[1].get(path)
                if values[0] != values[1]:
                    yield Difference(name, path, *values)
            return
    if before is None or after is None or "\n" not in before + after:
        yield Difference(name, "", _cell(before), _cell(after))
    else:
        yield Difference(name, "", None, None, _lines(before, after))


def _cell(text: str | None) -> str | None:
    return text if text is None or len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}… ({len(text)} characters)"


def _lines(before: str, after: str) -> tuple[str, ...]:
    one, other = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(one) + len(other) > _MAX_LINES:
        return (f"({len(one)} and {len(other)} lines, too many to compare)",)
    found = difflib.unified_diff(one, other, n=2)
    return tuple(_visible(line) for line in list(found)[2:])


def _visible(line: str) -> str:
    """A line whose end is no plain line feed shows it."""
    if line.endswith("\n") and not line.endswith("\r\n"):
        return line[:-1]
    return line.rstrip("\r\n") + ("\\r" if line.endswith("\r\n") else "\\ no line feed at the end")


def _settings(text: str) -> Mapping[str, str] | None:
    """Dotted path → value as text; None for what is no TOML. Documents that were read have no keys of many parts."""
    try:
        return dict(_flat(tomllib.loads(text), ""))
    except (ValueError, RecursionError):
        return None


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _flat(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            yield from _flat(each, f"{path}[{number}]")
    else:
        yield path, value if isinstance(value, str) else repr(value)
