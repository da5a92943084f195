"""Requests that are there at the same time, with an event loop and work of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kbs.lockstep import Steps
from kbs.web import cohort
from kbs.web.cohort import MAX_TOGETHER, Cohort

Seen = list[str]


def work(name: str, seen: Seen, error: Exception | None = None) -> Steps[str]:
    seen.append(f"{name} begins")
    yield
    seen.append(f"{name} ends")
    if error is not None:
        raise error
    return name


def run(act: Callable[[Cohort[str]], None], seen: Seen, *, problems: list[dict[str, Any]] | None = None) -> None:
    """`act` in a loop with a cohort; returns when the loop has nothing more to do. A problem nobody expects fails."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        found: list[dict[str, Any]] = [] if problems is None else problems
        loop.set_exception_handler(lambda _, context: found.append(context))
        act(Cohort(lambda: seen.append("all through")))
        seen.append("joined")
        await asyncio.sleep(0.05)
        assert problems is not None or not found

    asyncio.run(main())


def test_they_go_in_step_and_are_told_before_the_end() -> None:
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        for name in "ab":
            group.join("kind", work(name, seen), lambda found: seen.append(f"told {found}"))

    run(act, seen)
    assert seen == ["joined", "a begins", "b begins", "a ends", "b ends", "told a", "told b", "all through"]


def test_of_two_kinds_each_goes_by_itself() -> None:
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        for kind, name in (("x", "a"), ("y", "b"), ("x", "c")):
            group.join(kind, work(name, seen), lambda _: None)

    run(act, seen)
    assert seen == ["joined", "a begins", "c begins", "a ends", "c ends", "b begins", "b ends", "all through"]


def test_an_exception_is_told_to_its_own() -> None:
    seen: Seen = []
    told: list[object] = []

    def act(group: Cohort[str]) -> None:
        group.join("kind", work("a", seen, KeyError("a")), told.append)
        group.join("kind", work("b", seen), told.append)

    run(act, seen)
    assert isinstance(told[0], KeyError)
    assert told[1:] == ["b"]


def test_who_does_not_take_an_outcome_keeps_nobody_else_from_theirs() -> None:
    seen: Seen = []
    told: list[object] = []
    problems: list[dict[str, Any]] = []

    def burst(_: object) -> None:
        raise ValueError

    def act(group: Cohort[str]) -> None:
        group.join("kind", work("a", seen), burst)
        group.join("kind", work("b", seen), told.append)

    run(act, seen, problems=problems)
    assert told == ["b"]
    assert seen[-1] == "all through"
    assert [type(problem["exception"]) for problem in problems] == [ValueError]


def test_the_first_waits_for_those_who_come_meanwhile() -> None:
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        group.join("kind", work("a", seen), lambda _: None)
        asyncio.get_running_loop().call_soon(lambda: group.join("kind", work("b", seen), lambda _: None))

    run(act, seen)
    assert seen == ["joined", "a begins", "b begins", "a ends", "b ends", "all through"]


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "GATHER_SECONDS", 0.0)
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        group.join("kind", work("a", seen), lambda _: None)
        asyncio.get_running_loop().call_soon(lambda: group.join("kind", work("b", seen), lambda _: None))

    run(act, seen)
    assert seen.index("a ends") < seen.index("b begins")
    assert seen.count("all through") == 2


def test_a_crowd_goes_in_parts() -> None:
    seen: Seen = []
    told: list[object] = []

    def act(group: Cohort[str]) -> None:
        for number in range(MAX_TOGETHER + 1):
            group.join("kind", work(str(number), seen), told.append)

    run(act, seen)
    assert told == [str(number) for number in range(MAX_TOGETHER + 1)]
    assert seen[-4:] == ["all through", f"{MAX_TOGETHER} begins", f"{MAX_TOGETHER} ends", "all through"]
    assert seen.count("all through") == 2


def test_of_a_crowd_of_two_kinds_nobody_waits_for_all() -> None:
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        for number in range(2 * MAX_TOGETHER):
            kind = "xy"[number % 2]
            group.join(kind, work(kind, seen), lambda _: None)

    run(act, seen)
    assert [each for each in seen if each in ("x ends", "y ends", "all through")] == [
        *["x ends"] * MAX_TOGETHER,
        "all through",
        *["y ends"] * MAX_TOGETHER,
        "all through",
    ]


def test_who_is_told_may_send_the_next() -> None:
    seen: Seen = []

    def act(group: Cohort[str]) -> None:
        group.join("kind", work("a", seen), lambda _: group.join("kind", work("b", seen), lambda _: None))

    run(act, seen)
    assert seen == ["joined", "a begins", "a ends", "all through", "b begins", "b ends", "all through"]
