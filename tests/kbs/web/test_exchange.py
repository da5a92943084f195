"""The way of one request, with stations of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from kbs.audit.events import AdminRead, Event
from kbs.audit.gate import Decided, GroupCommit
from kbs.errors import AccessDenied, AuditUnavailable, KbsError, RateLimited, ServerFault, TokenMissing
from kbs.lockstep import Steps
from kbs.protocol.target import Target
from kbs.web.dispatch import Plan, Prepared
from kbs.web.exchange import Exchange, Stations
from kbs.web.metrics import Metrics
from kbs.web.model import Access, Call, Deferred, HttpRequest, HttpResponse, Route

ID = "0" * 32
OK = HttpResponse(200, b"yes")


def _never(_: Call) -> HttpResponse:
    raise AssertionError


PLAN = Plan(Route("POST", "/kbs/v0/auth", Access.PUBLIC, _never), Target("auth", ()), (), 1000)
REQUEST = HttpRequest("POST", "/kbs/v0/auth", None, None, None, None, b"", "192.0.2.1")


def decided(outcome: HttpResponse | KbsError) -> Decided[HttpResponse]:
    return Decided((AdminRead(decision=ID, actor="a", what="b"),), outcome)


class Bench:
    """Stations whose dispatcher does as told; the log is a list."""

    def __init__(self, threads: Executor | None) -> None:
        self.log: list[Event] = []
        self.outcome: Any = OK
        self.refused: list[tuple[str, bool]] = []
        self.admits: KbsError | None = None
        self.metrics = Metrics("1", (), shared=False)
        self.executor = ThreadPoolExecutor(1)
        self.handlers = threads
        self.fails: KbsError | None = None

    def admit(self, plan: Plan, peer: str | None) -> None:
        if self.admits is not None:
            raise self.admits

    def prepare(self, plan: Plan, request: HttpRequest) -> Prepared:
        return Prepared(self.outcome, ID, "/kbs/v0/auth")

    def problem(self, err: KbsError, prepared: Prepared | None, *, recorded: bool, family: object) -> HttpResponse:
        self.refused.append((type(err).__name__, recorded))
        return HttpResponse(599)

    def append(self, events: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.log += events

    def through(self) -> list[HttpResponse]:
        """Every answer that one request gets."""
        got: list[HttpResponse] = []

        async def run() -> None:
            done = asyncio.Event()

            def take(response: HttpResponse) -> None:
                got.append(response)
                done.set()

            stations: Any = Stations(
                dispatcher=SimpleNamespace(admit=self.admit, prepare=self.prepare, problem=self.problem),  # type: ignore[arg-type]
                gate=GroupCommit(self.append),
                metrics=self.metrics,
                executor=self.executor,
                handlers=self.handlers,
            )
            exchange = Exchange(stations, PLAN, take)
            try:
                exchange.admit("192.0.2.1")
            except KbsError as err:
                exchange.refuse(err)
            else:
                exchange.run(REQUEST)
            await asyncio.wait_for(done.wait(), 30)
            await asyncio.sleep(0)

        asyncio.run(run())
        return got


@pytest.fixture(params=["in-the-loop", "in-threads"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as threads:
        made = Bench(threads if request.param == "in-threads" else None)
        yield made
        made.executor.shutdown()
    assert b"kbs_http_active_connections 0.0" in made.metrics.exposition()


def test_an_answer_that_decides_nothing(bench: Bench) -> None:
    assert bench.through() == [OK]
    assert bench.log == []


def test_a_decision_is_on_record_before_it_leaves(bench: Bench) -> None:
    bench.outcome = decided(OK)
    assert bench.through() == [OK]
    assert [event.decision for event in bench.log] == [ID]


def test_a_recorded_refusal_says_so(bench: Bench) -> None:
    bench.outcome = decided(AccessDenied("no"))
    assert [response.status for response in bench.through()] == [599]
    assert bench.refused == [("AccessDenied", True)]


def test_a_refusal_without_a_decision(bench: Bench) -> None:
    bench.outcome = TokenMissing("none")
    bench.through()
    assert bench.refused == [("TokenMissing", False)]


def test_without_a_record_nothing_leaves(bench: Bench) -> None:
    bench.outcome, bench.fails = decided(OK), AuditUnavailable("full")
    assert [response.status for response in bench.through()] == [599]
    assert bench.refused[0][0] == "AuditUnavailable"


def test_one_too_many_is_not_run(bench: Bench) -> None:
    bench.admits = RateLimited("too many")
    bench.through()
    assert bench.refused == [("RateLimited", False)]


@pytest.mark.parametrize("found", [OK, decided(OK)], ids=["answer", "decision"])
def test_work_that_waits_runs_in_a_thread(bench: Bench, found: object) -> None:
    bench.outcome = Deferred(lambda: found)  # type: ignore[arg-type, return-value]
    assert bench.through() == [OK]
    assert len(bench.log) == isinstance(found, Decided)


@pytest.mark.parametrize(
    ("error", "named"), [(TokenMissing("none"), "TokenMissing"), (KeyError("x"), "ServerFault")], ids=["refusal", "bug"]
)
def test_what_work_in_a_thread_raises_refuses(bench: Bench, error: Exception, named: str) -> None:
    def work() -> HttpResponse:
        raise error

    bench.outcome = Deferred(work)
    bench.through()
    assert bench.refused == [(named, False)]
    assert issubclass(ServerFault, KbsError)


def in_steps(found: Any) -> Steps[Any]:
    """A handler that goes in steps; an exception is raised in the second."""
    yield
    if isinstance(found, Exception):
        raise found
    return found


@pytest.mark.parametrize(
    ("found", "records"),
    [(OK, 0), (decided(OK), 1), (Deferred(lambda: OK), 0), (Deferred(lambda: decided(OK)), 1)],
    ids=["answer", "decision", "work-that-waits", "decision-that-waits"],
)
def test_a_handler_may_go_in_steps(bench: Bench, found: object, records: int) -> None:
    bench.outcome = in_steps(found)
    assert bench.through() == [OK]
    assert len(bench.log) == records


@pytest.mark.parametrize(
    ("error", "named", "recorded"),
    [
        (TokenMissing("none"), "TokenMissing", False),
        (KeyError("x"), "ServerFault", False),
        (decided(AccessDenied("no")), "AccessDenied", True),
    ],
    ids=["refusal", "bug", "decision"],
)
def test_what_a_step_refuses(bench: Bench, error: object, named: str, recorded: bool) -> None:
    bench.outcome = in_steps(error)
    assert [response.status for response in bench.through()] == [599]
    assert bench.refused == [(named, recorded)]


def test_threads_that_have_ended_refuse(bench: Bench) -> None:
    bench.outcome = Deferred(lambda: OK)
    bench.executor.shutdown()
    if bench.handlers is not None:
        bench.handlers.shutdown()
    bench.through()
    assert bench.refused == [("ServerFault", False)]


def test_a_request_given_up_is_active_no_more() -> None:
    metrics = Metrics("1", (), shared=False)
    ignored: Callable[[HttpResponse], None] = lambda _: None  # noqa: E731
    stations: Any = SimpleNamespace(metrics=metrics)
    Exchange(stations, PLAN, ignored).abandon()
    assert b"kbs_http_active_connections 0.0" in metrics.exposition()
