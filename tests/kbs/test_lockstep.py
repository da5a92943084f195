"""Work in steps, alone and in step with others."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.lockstep import Steps, alone, together


def counting(name: str, steps: int, note: Callable[[str], None], error: Exception | None = None) -> Steps[str]:
    for number in range(steps):
        note(f"{name}{number}")
        yield
    if error is not None:
        raise error
    return name


def test_alone_runs_every_step_and_returns_the_result() -> None:
    seen: list[str] = []
    assert alone(counting("a", 3, seen.append)) == "a"
    assert seen == ["a0", "a1", "a2"]


def test_alone_raises_what_a_step_raises() -> None:
    with pytest.raises(KeyError, match="x"):
        alone(counting("a", 1, lambda _: None, KeyError("x")))


def test_each_step_of_all_comes_before_the_next_of_any() -> None:
    seen: list[str] = []
    assert together([counting("a", 3, seen.append), counting("b", 1, seen.append), counting("c", 2, seen.append)]) == [
        *"abc"
    ]
    assert seen == ["a0", "b0", "c0", "a1", "c1", "a2"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8))
def test_what_one_raises_is_its_own(works: list[tuple[int, bool]]) -> None:
    errors = [ValueError(str(number)) if fails else None for number, (_, fails) in enumerate(works)]
    ran: list[str] = []
    found = together(
        [
            counting(str(number), steps, ran.append, error)
            for number, ((steps, _), error) in enumerate(zip(works, errors, strict=True))
        ]
    )
    assert found == [error or str(number) for number, error in enumerate(errors)]
    assert len(ran) == sum(steps for steps, _ in works)


def test_an_interrupt_is_no_result() -> None:
    def interrupted() -> Generator[None, None, str]:
        yield
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together([interrupted()])


def test_nobody() -> None:
    assert together([]) == []
