"""Names that the shipped policies look up, so that a misspelt one is noticed before it is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Final

_NEAR: Final = 0.75  # of 1, as difflib counts
_COMPARED: Final = 50  # unknown names for which the nearest is looked for


@cache
def known() -> frozenset[str]:
    """The names in `known_names.txt`, one a line, sorted."""
    return frozenset(files("rvps.statements").joinpath("known_names.txt").read_text("utf-8").split())


def unknown(names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Names that no shipped policy looks up, each with the nearest that one does, if any is near."""
    spelt = sorted(known())
    for number, name in enumerate(name for name in dict.fromkeys(names) if name not in known()):
        near = get_close_matches(name, spelt, n=1, cutoff=_NEAR) if number < _COMPARED else []
        yield name, near[0] if near else None
