"""Many pieces of work, a step at a time: each step of all of them before the next step of any.

What a step reads (its code, the tables of a curve, a policy's memory) is in the processor's caches when the second
piece of work comes to it. One after the other, each would fetch all of it again, since in between it was pushed out: a
signature among everything else that a handshake needs takes almost twice the time of one right after another.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar, cast

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps: yields between two of them, and returns its result. It waits for nothing."""


def alone(steps: Steps[T]) -> T:
    """All steps of one piece of work; raises what they raise."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


def together(works: Sequence[Steps[T]]) -> list[T | Exception]:
    """All steps of all; what came of each, in the given order. What one raises is its own result and stops no other."""
    found: dict[int, T | Exception] = {}
    going: Sequence[int] = range(len(works))
    while going:
        on = []
        for number in going:
            try:
                next(works[number])
            except StopIteration as end:
                found[number] = end.value
            except Exception as err:  # noqa: BLE001 - a wall between pieces of work
                found[number] = err
            else:
                on.append(number)
        going = on
    return [found[number] for number in range(len(works))]
