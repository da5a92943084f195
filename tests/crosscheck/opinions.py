"""What two implementations say of one piece of evidence, and which of their differences are known.

A difference that nobody listed fails, and so does a listed one that the named cases no longer show.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.errors import EvidenceRejected

MAX_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Opinion:
    """One verdict.

    reason: why it is refused, or what is remarkable although it is accepted. facts: what both implementations tell of
    accepted evidence, in the same form.
    """

    accepted: bool
    reason: str = ""
    facts: Any = None

    def __str__(self) -> str:
        return f"accepted: {self.reason}: {self.facts}" if self.accepted else f"refused: {self.reason}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between this project and one implementation.

    ours, theirs: patterns that are found in the text of the two opinions. reason: a sentence for the documentation.
    """

    name: str
    ours: str
    theirs: str
    reason: str

    def explains(self, mine: Opinion, other: Opinion) -> bool:
        """Whether it is this one."""
        return bool(re.search(self.ours, str(mine)) and re.search(self.theirs, str(other)))

    @property
    def who_is_stricter(self) -> str:
        """`we`, `it`, or `both accept` with other facts."""
        mine, other = self.ours.startswith("^accepted"), self.theirs.startswith("^accepted")
        return "both accept" if mine and other else "it" if mine else "we"


@dataclass(slots=True)
class Comparison:
    """Opinions of many pieces of evidence side by side."""

    differences: Sequence[Difference]
    seen: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0

    def add(self, case: str, mine: Opinion, other: Opinion) -> None:
        """Take note of one piece."""
        if mine.accepted:
            self.accepted += 1
        else:
            self.refused += 1
        if mine.accepted == other.accepted and (not mine.accepted or mine.facts == other.facts):
            return
        for each in self.differences:
            if each.explains(mine, other):
                self.seen[each.name] += 1
                return
        self.unexplained.append(f"{case}\n    we:   {mine}\n    they: {other}")

    def check(self) -> None:
        """Nothing is unexplained.

        Raises:
            AssertionError: with the first few that are.
        """
        shown = "\n".join(self.unexplained[:MAX_SHOWN])
        assert not self.unexplained, f"{len(self.unexplained)} differences that are not listed:\n{shown}"

    def check_all_seen(self) -> None:
        """Every listed difference was there.

        Raises:
            AssertionError: naming those that were not.
        """
        gone = [each.name for each in self.differences if each.name not in self.seen]
        assert not gone, f"listed, and no longer there: {gone}"


def opinion_of(verify: Callable[[], Any]) -> Opinion:
    """Our verdict: the facts that `verify` returns, or what it refuses."""
    try:
        return Opinion(True, facts=verify())
    except EvidenceRejected as error:
        return Opinion(False, f"{type(error).__name__}: {error}")
