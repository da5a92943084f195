"""A JSON object of many members, encoded again at the cost of what changed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rvps.strict_json import encode

_BLOCK: Final = 256  # members at most; one block is encoded again when one of its members changes


@dataclass(slots=True)
class _Block:
    """Neighbours in order, each with its encoded member; `joined`: all of them with commas, None: to be done."""

    names: list[str]
    members: list[bytes]
    joined: bytes | None = None


class Members:
    """Encoded values by name, in the order of `rvps.strict_json.encode`."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._firsts: list[str] = []

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Members:
        """All of `values` at once, in any order."""
        made, names = cls(), sorted(values)
        for first in range(0, len(names), _BLOCK // 2):
            part = names[first : first + _BLOCK // 2]
            made._blocks.append(_Block(part, [encode(name) + b":" + encode(values[name]) for name in part]))
            made._firsts.append(part[0])
        return made

    def put(self, name: str, encoded: bytes) -> None:
        """Add or replace a member."""
        if not self._blocks:
            self._blocks, self._firsts = [_Block([], [])], [name]
        place = max(bisect_right(self._firsts, name) - 1, 0)
        block = self._blocks[place]
        member, inner = encode(name) + b":" + encoded, bisect_left(block.names, name)
        block.joined = None
        if inner < len(block.names) and block.names[inner] == name:
            block.members[inner] = member
            return
        block.names.insert(inner, name)
        block.members.insert(inner, member)
        self._firsts[place] = block.names[0]
        if len(block.names) > _BLOCK:
            self._split(place)

    def remove(self, name: str) -> None:
        """Take a member out; it is there."""
        place = bisect_right(self._firsts, name) - 1
        block = self._blocks[place]
        inner = bisect_left(block.names, name)
        del block.names[inner], block.members[inner]
        block.joined = None
        if block.names:
            self._firsts[place] = block.names[0]
        else:
            del self._blocks[place], self._firsts[place]

    def encoded(self) -> bytes:
        """The whole object, as `rvps.strict_json.encode` would write it."""
        parts = []
        for block in self._blocks:
            if block.joined is None:
                block.joined = b",".join(block.members)
            parts.append(block.joined)
        return b"{" + b",".join(parts) + b"}"

    def _split(self, place: int) -> None:
        block, half = self._blocks[place], _BLOCK // 2
        new = _Block(block.names[half:], block.members[half:])
        del block.names[half:], block.members[half:]
        self._blocks.insert(place + 1, new)
        self._firsts.insert(place + 1, new.names[0])
