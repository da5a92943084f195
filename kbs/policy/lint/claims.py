"""Which members verifiers emit, read from the fixtures that come with the package (`policies/fixtures`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from kbs.errors import ConfigInvalid
from kbs.policy.rego_sources import policies_folder

ANYTHING: Final = "*"
"""In the catalogue: a member whose inside is the guest's, or of many forms."""
_FILE: Final = "fixtures/claims.json"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The first member of a path that nobody emits. nearest: what was perhaps meant."""

    path: str
    nearest: str | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A tree of member names; a list stands as its elements' tree under `[]`, a leaf as an empty tree."""

    tree: Mapping[str, Any]

    def unknown(self, names: Sequence[str | None]) -> Unknown | None:
        """None when the path exists, or when it cannot be told (a part known at run time only)."""
        node: Any = self.tree
        for index, name in enumerate(names):
            if node == ANYTHING or name is None:
                return None
            if "[]" in node:
                return None
            if name not in node:
                near = get_close_matches(name, list(node), 1)
                shown = ".".join(str(each) for each in names[: index + 1])
                nearest = ".".join([*(str(each) for each in names[:index]), near[0]]) if near else None
                return Unknown(shown, nearest)
            node = node[name]
        return None


@lru_cache(maxsize=2)
def catalogue(folder: Path | None = None) -> Catalogue:
    """The catalogue of policy inputs for evidence.

    Raises:
        ConfigInvalid: the installation lacks it.
    """
    try:
        return Catalogue(json.loads(((folder or policies_folder()) / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise ConfigInvalid("the catalogue of claims is missing from this installation") from err
