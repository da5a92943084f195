"""Extractors: provenance of one type in, named values out. Signatures are not their business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rvps.errors import StatementUnacceptable
from rvps.extractors import corim, sample, swid

Extractor = Callable[[bytes], Mapping[str, Any]]
"""Takes the decoded payload. Raises `StatementUnacceptable` and nothing else."""

_EXTRACTORS: Final[Mapping[str, Extractor]] = {
    "corim": corim.extract,
    "sample": sample.extract,
    "swid": swid.extract,
}
_REPLACED: Final[Mapping[str, str]] = {
    "in-toto": "layouts and links are no longer read; sign an in-toto Statement v1 in a DSSE envelope, type `dsse`"
}
"""Types of older services, with what takes their place."""


def extractor_for(kind: str) -> Extractor:
    """The extractor of one message type.

    Raises:
        StatementUnacceptable: no such type. The first words are upstream's, which scripts look for.
    """
    found = _EXTRACTORS.get(kind)
    if found is None:
        if kind in _REPLACED:
            raise StatementUnacceptable(f"Could not find extractor for {kind}: {_REPLACED[kind]}")
        known = ", ".join(sorted(_EXTRACTORS))
        raise StatementUnacceptable(f"Could not find extractor for {kind[:64]}: this service reads {known}")
    return found
