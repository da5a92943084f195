"""YAML from people, read within bounds: plain data only, no anchors, no tags, no member twice.

An anchor that is used ten times in a list that is used ten times … is a document of a few lines and gigabytes of data,
so none is taken. Source: YAML 1.1 as PyYAML's safe loader reads it.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from kbs.errors import MalformedMessage

MAX_SIZE: Final = 2 << 20
"""Octets: a Pod with a full set of annotations and some more."""

_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 20_000
_MAX_DOCUMENTS: Final = 100


class _Refused(yaml.YAMLError):
    """Well-formed YAML that is not taken here."""


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself follows aliases, nests without end and lets the last member win."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _Refused("aliases (`*name`) are not taken: write it out")
        self._depth += 1
        self._nodes += 1
        if self._depth > _MAX_DEPTH:
            raise _Refused(f"nested deeper than {_MAX_DEPTH}")
        if self._nodes > _MAX_NODES:
            raise _Refused(f"more than {_MAX_NODES} values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.tag != "tag:yaml.org,2002:str":
                raise _Refused(f"a member name in line {name.start_mark.line + 1} is not a text")
            if name.value in names:
                raise _Refused(f"a member stands twice, again in line {name.start_mark.line + 1}")
            names.add(name.value)
        return super().construct_mapping(node, deep)


def documents(raw: bytes) -> list[Any]:
    """All documents of a text.

    Raises:
        MalformedMessage: too long, not UTF-8, not YAML, or one of the things that are not taken.
    """
    if len(raw) > MAX_SIZE:
        raise MalformedMessage(f"YAML: more than {MAX_SIZE} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage("YAML: not UTF-8 text") from None
    found: list[Any] = []
    loader = None
    try:
        loader = _BoundedLoader(text)
        while loader.check_data():  # type: ignore[no-untyped-call]
            found.append(loader.get_data())
            if len(found) > _MAX_DOCUMENTS:
                raise _Refused(f"more than {_MAX_DOCUMENTS} documents")
    except _Refused as err:
        raise MalformedMessage(f"YAML: {err}") from None
    except yaml.MarkedYAMLError as err:
        line = "" if err.problem_mark is None else f" near line {err.problem_mark.line + 1}"
        raise MalformedMessage(f"YAML: malformed{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none is a ValueError
        raise MalformedMessage("YAML: malformed, or holds characters that YAML does not allow") from None
    finally:
        if loader is not None:
            loader.dispose()
    return found
