"""Extractors: provenance of one type in, named values out. Signatures are not their business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rvps.errors import StatementUnacceptable
from rvps.extractors import sample

Extractor = Callable[[bytes], Mapping[str, Any]]
"""Takes the decoded payload. Raises `StatementUnacceptable` and nothing else."""

_EXTRACTORS: Final[Mapping[str, Extractor]] = {"sample": sample.extract}


def extractor_for(kind: str) -> Extractor:
    """The extractor of one message type.

    Raises:
        StatementUnacceptable: no such type. The first words are upstream's, which scripts look for.
    """
    found = _EXTRACTORS.get(kind)
    if found is None:
        known = ", ".join(sorted(_EXTRACTORS))
        raise StatementUnacceptable(f"Could not find extractor for {kind[:64]}: this service reads {known}")
    return found
