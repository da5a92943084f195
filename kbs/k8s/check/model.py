"""What a check says, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Worst first. `bad`: the Pod will not attest, or not get what it needs. `unknown`: nobody could be asked."""

    BAD = "bad"
    WARNING = "warning"
    UNKNOWN = "unknown"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Row:
    """what: such as `runtime class`. name: a stable code, of whatever looked. hint: what to do."""

    verdict: Verdict
    what: str
    text: str
    name: str = ""
    hint: str = ""


def good(what: str, text: str) -> Row:
    """As it should be."""
    return Row(Verdict.GOOD, what, text)
