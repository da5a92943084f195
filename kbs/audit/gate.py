"""The gate: a decision leaves only after its record is written (P-AUD-1)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from kbs.audit.events import Event
from kbs.errors import AuditUnavailable, DependencyFault, KbsError

T = TypeVar("T")
U = TypeVar("U")
Append = Callable[[Sequence[Event]], None]
"""Returns when the events are recorded durably; raises AuditUnavailable, or TypeError for an event that cannot be."""

MAX_BATCH: Final = 256
"""Decisions recorded by one append."""
HEAD_DELAY: Final = 0.05
"""Seconds for which the end of the log may be chained but unsigned."""
_HICCUP: Final = 10  # times the patience


def _nothing() -> None:
    """Neither settles nor undoes."""


@dataclass  # made for each request, and so not frozen; no slots: with them `Decided[T](…)` fails in Python 3.11
class Decided(Generic[T]):
    """What was decided, and the events that say so. `release` is the only way to the outcome.

    events: at least one.
    outcome: the value to hand out, or the refusal to raise.
    settle: what becomes true with the decision; runs after its record and before the outcome leaves.
    undo: runs when a dependency failed, so that there is no record or `settle` did not work.
    """

    events: tuple[Event, ...]
    _outcome: T | KbsError = field(repr=False)
    settle: Callable[[], None] = field(default=_nothing, repr=False)
    undo: Callable[[], None] = field(default=_nothing, repr=False)

    def __post_init__(self) -> None:
        if not self.events:
            raise ValueError("a decision without a record does not leave")

    def map(self, change: Callable[[T], U]) -> Decided[U]:
        """The same decision with its value in another form; a refusal stays as it is."""
        outcome = self._outcome if isinstance(self._outcome, KbsError) else change(self._outcome)
        return Decided(self.events, outcome, self.settle, self.undo)


def release(log_append: Append, decided: Decided[T]) -> T:
    """Record the events, then return the value or raise the refusal.

    Raises:
        AuditUnavailable: no record, hence no outcome, whichever it was.
        KbsError: the decided refusal.
    """
    try:
        log_append(decided.events)
    except DependencyFault:
        _undo(decided)
        raise
    if (error := _settle(decided)) is not None:
        if isinstance(error, DependencyFault):
            _undo(decided)
        raise error
    return _settled(decided)


def _settled(decided: Decided[T]) -> T:
    """The outcome; only for a decision that was recorded and settled."""
    if isinstance(decided._outcome, KbsError):
        raise decided._outcome
    return decided._outcome


@dataclass(slots=True)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    decided: Decided[Any]
    done: Callable[[Any], None]


_Answer = tuple[_Waiting, Exception | None]


class GroupCommit:
    """`release` in event loops: one append, and one settling, for everything that waits.

    While an append flushes, further decisions gather and go into the next one. As long as the disk is quick, appends
    run in the event loop itself, which is the least work per decision. After two in a row that took longer than
    `patience`, or one that took ten times as long, they run in a thread for a while, so that a slow disk does not hold
    up what needs no record. Several loops and forked processes may share one object; each process starts its own thread
    at first use.

    Args:
        log_append: see `Append`.
        together: opens a block in which the settling of a batch costs less.
        write_head: signs the end of the log; runs `HEAD_DELAY` seconds after an append at the latest.
        patience: seconds an append may hold up the loop.
        rest: seconds to stay in the thread after one that took longer.
        waits: appends, settling and undoing wait for another machine; all of it runs in the thread.
    """

    def __init__(
        self,
        log_append: Append,
        *,
        together: Callable[[], AbstractContextManager[object]] = nullcontext,
        write_head: Callable[[], None] = _nothing,
        patience: float = 0.02,
        rest: float = 2.0,
        waits: bool = False,
    ) -> None:
        self._append = log_append
        self._together = together
        self._write_head = write_head
        self._head_is_due = False
        self._patience = patience
        self._rest = rest
        self._waits = waits
        self._in_thread_until = 0.0  # of the loops' clock
        self._was_slow = False
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False

    def submit(self, decided: Decided[T], done: Callable[[T | Exception], None]) -> None:
        """As `kbs.audit.gate.release`; called in a loop, where `done` gets the value or what `release` would raise."""
        loop = asyncio.get_running_loop()
        if self._closed:
            loop.call_soon(done, AuditUnavailable("the service is stopping"))
            return
        waiting = _Waiting(loop, decided, done)
        if not self._waits and loop.time() >= self._in_thread_until:
            self._gather(waiting)
        else:
            if self._thread is None or self._pid != os.getpid():
                self._start()
            self._queue.put(waiting)

    async def release(self, decided: Decided[T]) -> T:
        """`submit` for coroutines. A cancelled caller's decision is recorded and settled all the same."""
        future: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()
        self.submit(decided, lambda outcome: None if future.done() else future.set_result(outcome))
        outcome = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # --- in the loop --------------------------------------------------------------------------------------------------

    def _gather(self, waiting: _Waiting) -> None:
        gathered = self._gathered.get(waiting.loop)
        if gathered is None:
            gathered = self._gathered[waiting.loop] = []
            waiting.loop.call_soon(self._flush, waiting.loop)
        gathered.append(waiting)

    def flush(self) -> None:
        """Record now what was submitted in this loop: nothing more will come of what the loop has at hand."""
        self._flush(asyncio.get_running_loop())

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        gathered = self._gathered.pop(loop, [])
        for start in range(0, len(gathered), MAX_BATCH):
            begun = loop.time()
            answers = self._record(gathered[start : start + MAX_BATCH])
            self._look_at(loop.time() - begun, loop)
            self._resolve(answers)

    def _look_at(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """An append took so long. One alone says little of a disk: any has a hiccup in some hundred flushes."""
        is_slow = seconds > self._patience
        if is_slow and (self._was_slow or seconds > _HICCUP * self._patience):
            self._in_thread_until = loop.time() + self._rest
        self._was_slow = is_slow

    def _sign(self) -> None:
        self._head_is_due = False
        with suppress(AuditUnavailable):  # the next append meets the same fault, and says so
            self._write_head()

    def _resolve(self, answers: list[_Answer]) -> None:
        """Settle a recorded batch and wake who waits for it."""
        self._wake(self._settled_all(answers))

    def _wake(self, answers: list[_Answer]) -> None:
        if answers and not self._head_is_due:
            self._head_is_due = True
            answers[0][0].loop.call_later(HEAD_DELAY, self._sign)
        for waiting, error in answers:
            try:
                waiting.done(waiting.decided._outcome if error is None else error)
            except Exception as err:  # noqa: BLE001 - wall: others wait for theirs
                waiting.loop.call_exception_handler({"message": "an outcome was not taken", "exception": err})

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._pid != os.getpid():  # forked: thread and queue are the parent's
                self._pid = os.getpid()
                self._queue, self._thread = SimpleQueue(), None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(self._queue,), name="audit-commit", daemon=True
                )
                self._thread.start()

    def _work(self, queue: SimpleQueue[_Waiting | None]) -> None:
        going = True
        while going:
            batch: list[_Waiting] = []
            item = queue.get()
            try:
                while item is not None:
                    batch.append(item)
                    if len(batch) == MAX_BATCH:
                        break
                    item = queue.get_nowait()
                else:
                    going = False
            except Empty:
                pass
            answers = self._record(batch)
            if self._waits:
                self._hand_back(self._settled_all(answers), self._wake)
            else:
                self._hand_back(answers, self._resolve)

    def _hand_back(self, answers: list[_Answer], take: Callable[[list[_Answer]], None]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        for answer in answers:
            by_loop.setdefault(answer[0].loop, []).append(answer)
        for loop, theirs in by_loop.items():
            try:
                loop.call_soon_threadsafe(take, theirs)
            except RuntimeError:
                continue  # that loop was closed; nobody waits in it

    # --- both ---------------------------------------------------------------------------------------------------------

    def _record(self, batch: list[_Waiting]) -> list[_Answer]:
        """Append a batch; what each waiter gets."""
        if not batch:
            return []
        try:
            self._append([event for waiting in batch for event in waiting.decided.events])
        except AuditUnavailable as err:
            # an exception of its own for each: they are raised in different places
            return [(waiting, AuditUnavailable(str(err), operator_detail=err.operator_detail)) for waiting in batch]
        except Exception as err:  # noqa: BLE001  # wall: a bug in one event must neither end the thread nor hit others
            if len(batch) == 1:
                return [(batch[0], err)]
            return [answer for waiting in batch for answer in self._record([waiting])]
        return [(waiting, None) for waiting in batch]

    def _settled_all(self, answers: list[_Answer]) -> list[_Answer]:
        """Settle what was recorded, undo what was not; what each waiter gets then."""
        try:
            with self._together() if len(answers) > 1 else nullcontext():
                answers = [(waiting, error or _settle(waiting.decided)) for waiting, error in answers]
        except Exception as err:  # noqa: BLE001 - wall: the batch was not settled, and who waits for it must be woken
            answers = [(waiting, error or err) for waiting, error in answers]
        failed = [waiting for waiting, error in answers if isinstance(error, DependencyFault)]
        if failed:
            with suppress(Exception), self._together() if len(failed) > 1 else nullcontext():  # as `_undo`
                for waiting in failed:
                    _undo(waiting.decided)
        return answers

    def close(self) -> None:
        """Record what waits, then end the thread. No `release` after this."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._queue.put(None)
            thread.join()


def _settle(decided: Decided[Any]) -> Exception | None:
    try:
        decided.settle()
    except Exception as err:  # noqa: BLE001 - wall: what is wrong with one decision must not hit the others of a batch
        return err
    return None


def _undo(decided: Decided[Any]) -> None:
    """Best effort: what made the decision fail, such as a full disk, may stop this too, and is what is reported."""
    with suppress(Exception):
        decided.undo()
