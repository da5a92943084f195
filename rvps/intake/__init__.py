"""Intake of signed messages: one module per format, each verifies first and reads what was signed afterwards."""

from __future__ import annotations

from typing import Final

from rvps.errors import StatementUnacceptable
from rvps.intake.model import Intake

INTAKES: Final[dict[str, Intake]] = {}
"""Message type → its intake. A constant after import."""


def intake_for(kind: str) -> Intake:
    """The intake of one type of signed message.

    Raises:
        StatementUnacceptable: no such type.
    """
    found = INTAKES.get(kind)
    if found is None:
        known = ", ".join(sorted(INTAKES)) or "none"
        raise StatementUnacceptable(f"no signed messages of type {kind[:64]!r} are read here; types: {known}")
    return found
