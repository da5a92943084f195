"""The one seam: loads enabled entry points and refuses everything else.

Verifiers and plugins are entry points, the built-in ones too. Installed is not enabled: only names in the settings
are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from kbs.errors import ConfigInvalid

Factory = Callable[..., Any]


def load(group: str, enabled: Iterable[str]) -> dict[str, Factory]:
    """Import the enabled names of one group, and no other code.

    Raises:
        ConfigInvalid: a name nobody provides, or that two packages provide.
    """
    factories: dict[str, Factory] = {}
    for name in enabled:
        found = [*_installed(group, tuple(sys.path)).select(name=name)]
        if len(found) != 1:
            raise ConfigInvalid(f"{group}: {str(name)!r} has {len(found)} providers, expected one")
        factories[name] = found[0].load()
    return factories


@lru_cache(maxsize=8)
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 - where it looks
    """Of all packages on this path. Reading what they say takes some twenty milliseconds, so it is done once."""
    return entry_points(group=group)
