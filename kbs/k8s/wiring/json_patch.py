"""JSON Patch with the one operation that is needed here: `add`, which also replaces a member (RFC 6902 4.1)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Any


@dataclass(frozen=True, slots=True)
class Addition:
    """path: a JSON pointer (RFC 6901); `/-` at its end appends to a list."""

    path: str
    value: Json

    def as_json(self) -> dict[str, Json]:
        """As the API server takes it."""
        return {"op": "add", "path": self.path, "value": self.value}


def escape(name: str) -> str:
    """A member name as a part of a pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def apply(additions: Iterable[Addition], document: Mapping[str, Json]) -> dict[str, Json]:
    """The document with all of them; the one that was given stays as it is.

    Raises:
        KeyError, IndexError: a path whose parent is not there.
    """
    made: dict[str, Json] = copy.deepcopy(dict(document))
    for each in additions:
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in each.path.split("/")[1:])
        found: Any = made
        for part in parents:
            found = found[int(part)] if isinstance(found, list) else found[part]
        value = copy.deepcopy(each.value)
        if not isinstance(found, list):
            found[last] = value
        elif last == "-":
            found.append(value)
        else:
            found.insert(int(last), value)
    return made
