"""One request on its way through guards, handler and audit gate to its answer, in the event loop.

No coroutine and no task: on the hot routes every step is there when the one before has ended, and the answer is handed
to a callback. Only work that may wait goes to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from kbs.audit.gate import Decided, GroupCommit
from kbs.errors import KbsError
from kbs.lockstep import alone
from kbs.web.cohort import Cohort
from kbs.web.dispatch import Dispatcher, Plan, Prepared, bug
from kbs.web.metrics import Metrics
from kbs.web.model import Deferred, HttpRequest, HttpResponse, Outcome

T = TypeVar("T")
Done = Callable[[HttpResponse], None]


@dataclass(frozen=True, slots=True)
class Stations:
    """What every exchange of a worker passes.

    executor: threads for work that may wait.
    handlers: threads for all handlers, where stores are waited for; None: stores answer at once, in the loop.
    cohort: where requests go through their handlers together, in the loop.
    """

    dispatcher: Dispatcher
    gate: GroupCommit
    metrics: Metrics
    executor: Executor
    handlers: Executor | None = None
    cohort: Cohort[Outcome] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cohort", Cohort(self.gate.flush))


class Exchange:
    """One request. `done` gets its answer, once, in the loop; a peer that hangs up spares it nothing.

    Use: `admit`, then either `run` or `refuse`.
    """

    __slots__ = ("_done", "_is_recorded", "_plan", "_prepared", "_start", "_stations")

    def __init__(self, stations: Stations, plan: Plan, done: Done) -> None:
        self._stations = stations
        self._plan = plan
        self._done = done
        self._prepared: Prepared | None = None
        self._is_recorded = False
        self._start = stations.metrics.begin()

    def admit(self, peer: str | None) -> None:
        """Let it in, before its body is read.

        Raises:
            RateLimited: too many handshakes.
        """
        self._stations.dispatcher.admit(self._plan, peer)

    def run(self, request: HttpRequest) -> None:
        """Guards, handler, audit gate."""
        stations = self._stations
        if stations.handlers is None:
            self._take(stations.dispatcher.prepare(self._plan, request))
        else:
            self._in_thread(stations.handlers, partial(self._whole, request), self._proceed)

    def refuse(self, error: Exception) -> None:
        """End it with a refusal; an exception that nobody raised on purpose is our bug."""
        stations, plan = self._stations, self._plan
        known = error if isinstance(error, KbsError) else bug(error)
        is_recorded = self._is_recorded and known is error
        stations.metrics.refused(known)
        family = plan.route.family
        self._finish(stations.dispatcher.problem(known, self._prepared, recorded=is_recorded, family=family))

    def abandon(self) -> None:
        """End it without an answer, before `run`: nobody waits for one."""
        self._stations.metrics.abandoned()

    def _whole(self, request: HttpRequest) -> Outcome | KbsError:
        """Guards and handler to their end, in a thread."""
        self._prepared = prepared = self._stations.dispatcher.prepare(self._plan, request)
        return alone(prepared.outcome) if isinstance(prepared.outcome, Generator) else prepared.outcome

    def _take(self, prepared: Prepared) -> None:
        """From what a handler left to the answer."""
        self._prepared = prepared
        outcome = prepared.outcome
        if isinstance(outcome, Generator):
            self._stations.cohort.join(self._plan.route.family, outcome, self._proceed)
        else:
            self._proceed(outcome)

    def _proceed(self, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Deferred):
            self._in_thread(self._stations.executor, outcome.work, self._conclude)
        else:
            self._conclude(outcome)

    def _in_thread(self, threads: Executor, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """What may wait, and in the loop again what follows from it."""

        def ended(future: asyncio.Future[T]) -> None:
            error = future.exception()
            if error is None:
                then(future.result())
            else:
                self.refuse(error if isinstance(error, Exception) else RuntimeError("a thread was told to end"))

        try:
            future = asyncio.get_running_loop().run_in_executor(threads, work)
        except RuntimeError as error:  # this process ends, and its threads with it
            self.refuse(error)
        else:
            future.add_done_callback(ended)

    def _conclude(self, outcome: HttpResponse | Decided[HttpResponse] | Exception) -> None:
        if not isinstance(outcome, Decided):
            self._released(outcome)
            return
        self._is_recorded = True
        try:
            self._stations.gate.submit(outcome, self._released)
        except RuntimeError as error:  # as above
            self.refuse(error)

    def _released(self, outcome: HttpResponse | Exception) -> None:
        if isinstance(outcome, HttpResponse):
            self._finish(outcome)
        else:
            self.refuse(outcome)

    def _finish(self, response: HttpResponse) -> None:
        self._stations.metrics.end(self._start, self._plan.route, response.status)
        self._done(response)
