"""Names of resources: `repository/type/tag`.

Source: KBS protocol 1.4; threat model P-STO-4 (1 to 255 octets a segment).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kbs.errors import NameNotAllowed

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A name that passed the grammar. Made by `parse` only."""

    repository: str
    type: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}/{self.type}/{self.tag}"


def parse(segments: Sequence[str]) -> ResourcePath:
    """Check decoded path segments. There is no two-part form and no default repository.

    Raises:
        NameNotAllowed: not exactly three segments of the grammar. On a guest's path that is "no such resource".
    """
    if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise NameNotAllowed(
            "a resource is repository/type/tag, each 1 to 255 of A-Z a-z 0-9 _ - and, not in first place, dots"
        )
    return ResourcePath(*segments)
