"""TOML, written the same way each time: a document is what its octets are, so no library's taste may decide them.

Strings are basic ("…"), or multi-line basic (three quotes) where they have a line feed; entries of init data are
multi-line literal (three apostrophes) where the text allows it, so that people can read them. Members keep the order
that they are given in, tables behind them. Source: TOML 1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kbs.errors import MalformedMessage

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_CONTROL: Final = re.compile(r'[\x00-\x1f\x7f"\\]')
_NOT_LITERAL: Final = re.compile(r"'''|[\x00-\x08\x0b-\x1f\x7f]")
_MAX_DEPTH: Final = 16


def entry(name: str, text: str) -> str:
    """One entry of `[data]`: its name always in quotes; a text of several lines ends with the marker on a line of its
    own where it ends with a line feed."""
    if "\n" not in text:
        return f"{basic(name)} = {basic(text)}\n"
    if not _NOT_LITERAL.search(text) and not text.endswith("'"):
        return f"{basic(name)} = '''\n{text}'''\n"
    return f"{basic(name)} = {_multi_line(text)}\n"


def table(members: Mapping[str, Any]) -> str:
    """A whole document.

    Raises:
        MalformedMessage: a value that TOML does not have (null), or nested too deeply.
    """
    return "\n".join(_table(members, (), 0))


def basic(text: str) -> str:
    """A string on one line."""
    return f'"{_CONTROL.sub(_escaped, text)}"'


def _multi_line(text: str) -> str:
    lines = text.split("\n")
    return '"""\n' + "\n".join(_CONTROL.sub(_escaped, line) for line in lines) + '"""'


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _table(members: Mapping[str, Any], path: tuple[str, ...], depth: int) -> list[str]:
    """Parts of the text: each ends with a line feed, and an empty line stands between them."""
    if depth > _MAX_DEPTH:
        raise MalformedMessage("init data: settings nest too deeply")
    plain = {name: each for name, each in members.items() if not _is_table(each) and not _is_tables(each)}
    parts: list[str] = []
    lines = "".join(f"{_key(name)} = {_value(each, depth)}\n" for name, each in plain.items())
    if path and (plain or not members):
        lines = f"[{'.'.join(map(_key, path))}]\n{lines}"
    if lines:
        parts.append(lines)
    for name, each in members.items():
        if _is_table(each):
            parts += _table(each, (*path, name), depth + 1)
        elif _is_tables(each):
            for one in each:
                parts += _element(one, (*path, name), depth + 1)
    return parts


def _element(members: Mapping[str, Any], path: tuple[str, ...], depth: int) -> list[str]:
    """One table of an array of tables; what is nested in it is written in line."""
    lines = "".join(f"{_key(name)} = {_value(each, depth)}\n" for name, each in members.items())
    return [f"[[{'.'.join(map(_key, path))}]]\n{lines}"]


def _value(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise MalformedMessage("init data: settings nest too deeply")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _multi_line(value) if "\n" in value else basic(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(each, depth + 1) for each in value)}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(each, depth + 1)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise MalformedMessage("init data: a setting has a value that TOML does not have, such as null")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else basic(name)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
