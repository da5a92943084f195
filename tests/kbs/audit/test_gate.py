"""Nothing leaves before its record, and one append serves all that wait."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from kbs.audit.events import AdminRead, Event
from kbs.audit.gate import MAX_BATCH, Decided, GroupCommit, release
from kbs.errors import AccessDenied, AuditUnavailable, StorageUnavailable


def event(number: int) -> Event:
    return AdminRead(decision=f"{number:032x}", actor="ann", what="policy")


class Log:
    """Remembers batches; fails or waits when told to."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.threads: set[int] = set()
        self.full = False
        self.go = threading.Event()
        self.go.set()

    def append(self, events: Sequence[Event]) -> None:
        self.go.wait(10)
        self.threads.add(threading.get_ident())
        if self.full:
            raise AuditUnavailable("no records", operator_detail="disk full")
        if any(found.decision == "bad" for found in events):
            raise TypeError("cannot be recorded")
        self.batches.append(list(events))


def _in_thread(log: Log) -> GroupCommit:
    """As after an append that took too long."""
    made = GroupCommit(log.append)
    made._in_thread_until = math.inf
    return made


@pytest.fixture(params=["inline", "thread", "waits"])
def group(request: pytest.FixtureRequest, log: Log) -> Iterator[GroupCommit]:
    kinds = {
        "inline": lambda: GroupCommit(log.append, patience=60.0),
        "thread": lambda: _in_thread(log),
        "waits": lambda: GroupCommit(log.append, waits=True),
    }
    made = kinds[request.param]()
    yield made
    made.close()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_value_leaves_after_its_record(log: Log) -> None:
    assert release(log.append, Decided((event(1), event(2)), b"value")) == b"value"
    assert log.batches == [[event(1), event(2)]]


def test_a_refusal_is_raised_after_its_record(log: Log) -> None:
    with pytest.raises(AccessDenied):
        release(log.append, Decided[bytes]((event(1),), AccessDenied("no")))
    assert log.batches == [[event(1)]]


@pytest.mark.parametrize("outcome", [b"value", AccessDenied("no")])
def test_without_a_record_there_is_no_outcome(log: Log, outcome: bytes | AccessDenied) -> None:
    log.full = True
    with pytest.raises(AuditUnavailable):
        release(log.append, Decided((event(1),), outcome))


def test_a_decision_has_a_record_and_hides_its_value() -> None:
    with pytest.raises(ValueError, match="record"):
        Decided((), b"value")
    assert "canary" not in repr(Decided((event(1),), b"canary"))


def test_coroutines_get_their_own_outcomes(log: Log, group: GroupCommit) -> None:
    async def run() -> list[object]:
        decided: list[Decided[int]] = [
            Decided((event(number),), AccessDenied(str(number)) if number % 2 else number) for number in range(1000)
        ]
        return await asyncio.gather(*(group.release(one) for one in decided), return_exceptions=True)

    answers = asyncio.run(run())
    assert answers[::2] == list(range(0, 1000, 2))
    assert [str(answer) for answer in answers[1::2]] == [str(number) for number in range(1, 1000, 2)]
    assert all(isinstance(answer, AccessDenied) for answer in answers[1::2])
    assert [found for batch in log.batches for found in batch] == [event(number) for number in range(1000)]
    assert max(len(batch) for batch in log.batches) <= MAX_BATCH
    assert len(log.batches) < 500
    assert len(log.threads) == 1


def test_what_gathers_during_an_append_goes_into_the_next(log: Log) -> None:
    group = _in_thread(log)

    async def run() -> None:
        log.go.clear()
        waiting = [asyncio.ensure_future(group.release(Decided((event(number),), number))) for number in range(20)]
        await asyncio.sleep(0.02)
        assert not any(one.done() for one in waiting)  # nothing leaves before its record
        log.go.set()
        assert await asyncio.gather(*waiting) == list(range(20))

    asyncio.run(run())
    group.close()
    assert len(log.batches) <= 3


def test_a_full_disk_refuses_the_whole_batch_and_recovers(log: Log, group: GroupCommit) -> None:
    async def run() -> None:
        log.full = True
        answers = await asyncio.gather(
            *(group.release(Decided((event(number),), number)) for number in range(10)), return_exceptions=True
        )
        assert all(isinstance(answer, AuditUnavailable) for answer in answers)
        assert len({id(answer) for answer in answers}) == 10
        assert all(isinstance(a, AuditUnavailable) and a.operator_detail == "disk full" for a in answers)
        log.full = False
        assert await group.release(Decided((event(11),), 11)) == 11

    asyncio.run(run())


def test_a_bad_event_hits_only_its_own_decision(log: Log, group: GroupCommit) -> None:
    bad = AdminRead(decision="bad", actor="ann", what="policy")

    async def run() -> list[object]:
        events = [event(0), bad, event(2)]
        return await asyncio.gather(
            *(group.release(Decided((found,), number)) for number, found in enumerate(events)), return_exceptions=True
        )

    answers = asyncio.run(run())
    assert (answers[0], answers[2]) == (0, 2)
    assert isinstance(answers[1], TypeError)


def test_a_cancelled_waiter_disturbs_nobody(log: Log) -> None:
    group = _in_thread(log)

    async def run() -> None:
        log.go.clear()
        one = asyncio.ensure_future(group.release(Decided((event(1),), 1)))
        two = asyncio.ensure_future(group.release(Decided((event(2),), 2)))
        await asyncio.sleep(0.02)
        one.cancel()
        log.go.set()
        assert await two == 2
        with pytest.raises(asyncio.CancelledError):
            await one

    asyncio.run(run())
    group.close()
    assert event(1) in [found for batch in log.batches for found in batch]


def test_a_loop_that_went_away_does_not_stop_the_others(log: Log) -> None:
    group = _in_thread(log)

    async def leave() -> None:
        log.go.clear()
        asyncio.ensure_future(group.release(Decided((event(1),), 1))).cancel()
        waiting = asyncio.ensure_future(group.release(Decided((event(2),), 2)))
        await asyncio.sleep(0.01)
        waiting.cancel()

    asyncio.run(leave())
    log.go.set()
    assert asyncio.run(group.release(Decided((event(3),), 3))) == 3
    group.close()


def test_loops_of_several_threads_share_it(log: Log, group: GroupCommit) -> None:
    answers: list[int] = []

    async def run(start: int) -> None:
        for number in range(start, start + 20):
            answers.append(await group.release(Decided((event(number),), number)))

    threads = [threading.Thread(target=asyncio.run, args=(run(start),)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [*range(20), *range(100, 120), *range(200, 220)]


def test_a_forked_process_starts_its_own_thread(log: Log) -> None:
    group = _in_thread(log)
    assert asyncio.run(group.release(Decided((event(1),), 1))) == 1

    def use() -> None:
        assert asyncio.run(group.release(Decided((event(2),), 2))) == 2
        group.close()

    child = multiprocessing.get_context("fork").Process(target=use)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert asyncio.run(group.release(Decided((event(3),), 3))) == 3
    group.close()


def test_after_close_nothing_leaves(log: Log, group: GroupCommit) -> None:
    assert asyncio.run(group.release(Decided((event(1),), 1))) == 1
    group.close()
    with pytest.raises(AuditUnavailable):
        asyncio.run(group.release(Decided((event(2),), 2)))
    assert log.batches == [[event(1)]]


def test_a_slow_append_sends_the_next_ones_to_the_thread(log: Log) -> None:
    group = GroupCommit(log.append, patience=0.0, rest=60.0)

    async def two() -> None:
        await group.release(Decided((event(1),), b"a"))
        await group.release(Decided((event(2),), b"b"))

    asyncio.run(two())
    group.close()
    assert len(log.threads) == 2


@pytest.mark.parametrize(
    ("seconds", "moves"),
    [([1.1, 0.9, 1.1, 0.9], False), ([1.1, 1.1], True), ([10.5], True), ([0.9] * 5, False)],
    ids=["now-and-then", "two-in-a-row", "very-slow", "quick"],
)
def test_one_hiccup_is_no_slow_disk(log: Log, seconds: list[float], moves: bool) -> None:
    group = GroupCommit(log.append, patience=1.0, rest=60.0)
    with asyncio.Runner() as runner:
        for taken in seconds:
            group._look_at(taken, runner.get_loop())
        runner.run(group.release(Decided((event(1),), b"a")))
    group.close()
    assert (log.threads != {threading.get_ident()}) is moves


def test_a_batch_settles_in_one_block_and_after_its_record(log: Log) -> None:
    seen: list[str] = []

    @contextmanager
    def together() -> Iterator[None]:
        seen.append(f"begin after {len(log.batches)}")
        yield
        seen.append("end")

    group = GroupCommit(log.append, together=together, patience=60.0)

    async def both() -> None:
        await asyncio.gather(
            *(
                group.release(Decided((event(n),), n, settle=lambda n=n: seen.append(f"settle {n}")))  # type: ignore[misc]
                for n in (1, 2)
            )
        )

    asyncio.run(both())
    assert seen == ["begin after 1", "settle 1", "settle 2", "end"]


def test_without_a_record_nothing_settles_and_the_decision_is_undone(log: Log, group: GroupCommit) -> None:
    log.full = True
    seen: list[str] = []
    decided = Decided((event(1),), b"x", settle=lambda: seen.append("settle"), undo=lambda: seen.append("undo"))
    with pytest.raises(AuditUnavailable):
        asyncio.run(group.release(decided))
    with pytest.raises(AuditUnavailable):
        release(log.append, decided)
    assert seen == ["undo", "undo"]


def test_a_decision_that_does_not_settle_does_not_leave(log: Log, group: GroupCommit) -> None:
    def settle() -> None:
        raise StorageUnavailable("no room")

    with pytest.raises(StorageUnavailable):
        asyncio.run(group.release(Decided((event(1),), b"x", settle=settle)))


@pytest.mark.parametrize("full", [False, True])
def test_what_waits_for_another_machine_keeps_nobody_else_waiting(log: Log, full: bool) -> None:
    """Record, settling and undoing, of one decision and of many at once, all outside the loop."""
    seen: set[int] = set()
    blocks = 0

    @contextmanager
    def together() -> Iterator[None]:
        nonlocal blocks
        blocks += 1
        seen.add(threading.get_ident())
        yield
        seen.add(threading.get_ident())

    log.full = full
    group = GroupCommit(log.append, together=together, waits=True)

    def note() -> None:
        seen.add(threading.get_ident())

    async def many() -> list[object]:
        log.go.clear()
        threading.Timer(0.05, log.go.set).start()
        decided = [Decided((event(n),), n, settle=note, undo=note) for n in range(20)]
        return await asyncio.gather(*(group.release(each) for each in decided), return_exceptions=True)

    found = asyncio.run(many())
    group.close()
    assert all(isinstance(each, AuditUnavailable) for each in found) if full else found == [*range(20)]
    assert 0 < blocks <= 4
    assert seen
    assert threading.get_ident() not in seen | log.threads
