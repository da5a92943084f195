"""One connection, with a transport, a clock and an application of our own: hot requests, deadlines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gunicorn.glogging
import pytest
from gunicorn.config import Config

from kbs.protocol.target import Target
from kbs.web.asgi import BrokerAsgi, Receive, Scope, Send
from kbs.web.body import SMALL
from kbs.web.connection import BODY_SECONDS, HEAD_LIMIT, UNREAD_SECONDS, BrokerProtocol
from kbs.web.dispatch import Plan
from kbs.web.model import Access, Call, HttpRequest, HttpResponse, Listener, Route


class Transport:
    """What was written; holds so many octets that the peer has not read."""

    def __init__(self) -> None:
        self.unread = 0
        self.aborted = False
        self.closed = False
        self.reading = True
        self.written = b""

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 8080)}.get(name)

    def set_write_buffer_limits(self, high: int) -> None:
        assert high

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


def _never(_: Call) -> HttpResponse:
    raise AssertionError


HOT = Plan(Route("POST", "/kbs/v0/hot", Access.PUBLIC, _never), Target("hot", ()), (), 1000)


class App(BrokerAsgi):
    """`/kbs/v0/hot` is hot; answers at once, or when told to."""

    def __init__(self) -> None:
        self.asked: list[HttpRequest] = []
        self.through_asgi: list[str] = []
        self.waiting: list[Callable[[HttpResponse], None]] = []
        self.at_once = True
        self.on_asgi: Callable[[], None] = lambda: None

    def listener(self, port: int | None) -> Listener:
        assert port == 8080
        return Listener.ADMIN

    def hot_plan(self, method: str, target: str, listener: Listener) -> Plan | None:
        assert listener is Listener.ADMIN
        return HOT if (method, target) == ("POST", "/kbs/v0/hot") else None

    def answer(self, plan: Plan, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        assert plan is HOT
        self.asked.append(request)
        if self.at_once:
            done(HttpResponse(200, b"<" + request.body + b">", "text/plain"))
        else:
            self.waiting.append(done)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.through_asgi.append(scope["path"])
        self.on_asgi()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"asg"})


class Bench:
    """A connection that was just made, in a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, parser: str) -> None:
        self.loop = loop
        self.app = App()
        self.transport = Transport()
        cfg = Config()
        cfg.set("http_parser", parser)
        cfg.set("keepalive", 5)
        self.worker = SimpleNamespace(
            cfg=cfg,
            log=gunicorn.glogging.Logger(cfg),
            asgi=self.app,
            loop=loop,
            nr_conns=0,
            worker_connections=10,
            connections=set(),
            alive=True,
            nr=0,
            max_requests=sys.maxsize,
        )
        self.connection: Any = BrokerProtocol(self.worker)  # type: ignore[arg-type]
        self._in_loop(lambda: self.connection.connection_made(self.transport))

    def _in_loop(self, step: Callable[[], object]) -> None:
        async def run() -> None:
            step()
            for _ in range(20):  # what gunicorn's task and the application's have to do
                await asyncio.sleep(0)

        self.loop.run_until_complete(run())

    def send(self, octets: bytes) -> None:
        self._in_loop(lambda: self.connection.data_received(octets))

    def answer(self, body: bytes) -> None:
        self._in_loop(lambda: self.app.waiting.pop(0)(HttpResponse(200, body)))

    @property
    def bodies(self) -> list[bytes]:
        """Of all answers so far."""
        found, rest = [], self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = next(
                int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")
            )
            found.append(rest[:length])
            rest = rest[length:]
        return found


def hot(body: bytes, *fields: bytes) -> bytes:
    head = [b"POST /kbs/v0/hot HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join((*head, b"", body))


COLD = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(params=["auto", "python"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        made = Bench(runner.get_loop(), request.param)
        yield made
        made._in_loop(lambda: made.connection.connection_lost(None))


def test_a_hot_request_is_answered_where_it_came_in(bench: Bench) -> None:
    bench.send(hot(b"abc", b"Cookie: kbs-session-id=x", b"Authorization: Bearer y", b"Kubernetes-Pod-Token: z"))
    assert bench.bodies == [b"<abc>"]
    assert bench.transport.written.startswith(b"HTTP/1.1 200 OK\r\nServer: kbs\r\nDate: ")
    (asked,) = bench.app.asked
    assert (asked.method, asked.target, asked.body, asked.peer) == ("POST", "/kbs/v0/hot", b"abc", "192.0.2.1")
    assert (asked.cookie, asked.authorization, asked.pod_token) == ("x", "Bearer y", "z")
    assert bench.connection.is_idle
    assert bench.app.through_asgi == []


def test_octet_by_octet(bench: Bench) -> None:
    for octet in hot(b"abc") + hot(b"d"):
        bench.send(bytes([octet]))
    assert bench.bodies == [b"<abc>", b"<d>"]


def test_requests_that_come_together_are_answered_in_order(bench: Bench) -> None:
    bench.send(hot(b"1") + COLD + hot(b"2") + hot(b"3") + COLD)
    assert bench.bodies == [b"<1>", b"asg", b"<2>", b"<3>", b"asg"]
    assert bench.app.through_asgi == ["/other", "/other"]


def test_very_many_that_come_together(bench: Bench) -> None:
    """More than the interpreter would stack."""
    bench.send(hot(b"") * 700)
    assert bench.bodies == [b"<>"] * 700


def test_what_follows_waits_until_the_answer(bench: Bench) -> None:
    bench.app.at_once = False
    bench.send(hot(b"1") + hot(b"2"))
    bench.send(hot(b"3")[:30])
    assert not bench.transport.reading
    assert [asked.body for asked in bench.app.asked] == [b"1"]
    assert not bench.connection.is_idle
    bench.answer(b"one")
    assert [asked.body for asked in bench.app.asked] == [b"1", b"2"]
    bench.answer(b"two")
    assert bench.transport.reading
    bench.send(hot(b"3")[30:])
    bench.answer(b"three")
    assert bench.bodies == [b"one", b"two", b"three"]


def test_what_follows_a_cold_request_is_left_to_the_kernel(bench: Bench) -> None:
    """gunicorn closes a connection on which more than 64 KiB came in before it has ended a request."""
    seen: list[bool] = []
    bench.app.on_asgi = lambda: seen.append(bench.transport.reading)
    bench.send(COLD)
    assert seen == [False]
    assert bench.transport.reading
    bench.send(COLD)
    assert bench.bodies == [b"asg", b"asg"]


def test_a_cold_request_that_follows_waits_too(bench: Bench) -> None:
    bench.app.at_once = False
    bench.send(hot(b"1") + COLD)
    assert bench.app.through_asgi == []
    bench.answer(b"one")
    assert bench.bodies == [b"one", b"asg"]


@pytest.mark.parametrize(
    "octets",
    [
        hot(b"abc", b"Expect: 100-continue"),
        hot(b"abc", b"Content-Encoding: identity"),
        hot(b"abc", b"Upgrade: nothing"),
        hot(b"abc").replace(b"HTTP/1.1", b"HTTP/1.0"),
        hot(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        hot(b"x" * 1001),
        hot(b"x" * (SMALL + 1)),
        hot(b"abc").replace(b"POST", b"PUT"),
        hot(b"abc").replace(b"/hot", b"/hot?x"),
    ],
    ids=["expect", "encoding", "upgrade", "http-1.0", "chunked", "over-the-limit", "large", "method", "query"],
)
def test_what_asks_for_more_goes_gunicorns_way(bench: Bench, octets: bytes) -> None:
    bench.send(octets)
    assert bench.app.asked == []
    assert len(bench.app.through_asgi) == 1
    assert bench.transport.written.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200", b"HTTP/1.1 100"))


@pytest.mark.parametrize(
    "octets",
    [
        hot(b"abc", b"Content-Length: 4"),
        hot(b"abc", b"Host: b"),
        hot(b"abc", b"Transfer-Encoding: chunked"),
        hot(b"abc").replace(b"/hot", b"/h\x80t"),
        hot(b"abc").replace(b"Content-Length: 3", b"Content-Length: +3"),
        hot(b"abc", b"a b: c"),
    ],
    ids=["two-lengths", "two-hosts", "length-and-chunks", "target", "length", "name"],
)
def test_what_is_no_request_is_refused(bench: Bench, octets: bytes) -> None:
    bench.send(octets)
    assert bench.app.asked == []
    assert bench.transport.written.startswith(b"HTTP/1.1 400 ")
    assert bench.transport.closed


def test_a_peer_that_wants_no_more_is_told_so(bench: Bench) -> None:
    bench.send(hot(b"abc", b"Connection: close") + hot(b"d"))
    assert bench.bodies == [b"<abc>"]
    assert b"\r\nConnection: close\r\n" in bench.transport.written
    assert bench.transport.closed


def test_a_worker_that_ends_keeps_no_connection(bench: Bench) -> None:
    bench.worker.alive = False
    bench.send(hot(b"abc"))
    assert b"\r\nConnection: close\r\n" in bench.transport.written
    assert bench.transport.closed


def test_a_body_refused_as_too_large_ends_the_connection(bench: Bench) -> None:
    bench.app.at_once = False
    bench.send(hot(b"abc"))
    response = HttpResponse(413, b"", None, (("Connection", "close"),))
    bench._in_loop(lambda: bench.app.waiting.pop()(response))
    assert bench.transport.written.count(b"Connection: close") == 1
    assert bench.transport.closed


def test_an_answer_for_a_peer_that_is_gone_is_dropped(bench: Bench) -> None:
    bench.app.at_once = False
    bench.send(hot(b"abc"))
    bench._in_loop(lambda: bench.connection.connection_lost(None))
    bench.answer(b"late")
    assert bench.transport.written == b""


def test_a_peer_that_does_not_read_gets_no_further_answers(bench: Bench) -> None:
    bench.connection.pause_writing()
    bench.send(hot(b"1") + hot(b"2"))
    bench.send(hot(b"3"))
    assert bench.bodies == [b"<1>"]
    assert not bench.transport.reading
    bench._in_loop(bench.connection.resume_writing)
    assert bench.bodies == [b"<1>", b"<2>", b"<3>"]
    assert bench.transport.reading
    assert bench.connection.is_idle


def test_a_body_that_does_not_come_closes_the_connection(bench: Bench) -> None:
    bench.send(hot(b"abc")[:-1])
    sweep(bench.connection, BODY_SECONDS - 2)
    assert not bench.transport.closed
    sweep(bench.connection, 4, start=100.0 + BODY_SECONDS - 2)
    assert bench.transport.closed


def test_one_that_is_being_answered_has_no_deadline(bench: Bench) -> None:
    bench.send(COLD)  # gunicorn's loop runs its own keep-alive time
    bench.app.at_once = False
    bench.send(hot(b"abc"))
    bench.connection._idle_since = None
    sweep(bench.connection, 10 * BODY_SECONDS)
    assert not bench.transport.closed


def test_the_keep_alive_time_runs_after_a_hot_request(bench: Bench) -> None:
    bench.send(hot(b"abc"))
    idle_since = bench.connection._idle_since
    bench.connection.check(idle_since + 4.9)
    assert not bench.transport.closed
    bench.connection.check(idle_since + 5.0)
    assert bench.transport.closed


def test_a_hot_request_that_follows_a_cold_one_stops_the_keep_alive_time(bench: Bench) -> None:
    bench.app.at_once = False
    bench.send(COLD + hot(b"abc"))
    assert len(bench.app.asked) == 1
    assert bench.connection._idle_since is None


def test_the_head_of_a_hot_request_has_its_limit(bench: Bench) -> None:
    field = b"x-%d: " + b"y" * 60_000
    bench.send(hot(b"abc", *(field % number for number in range(3))))
    assert bench.app.asked == []
    assert bench.transport.written.startswith(b"HTTP/1.1 431 ")
    assert bench.transport.closed
    assert HEAD_LIMIT < 180_000


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture(params=[False, True], ids=["open", "closing"])
def connection(request: pytest.FixtureRequest, transport: Transport) -> Any:
    """One with an answer under way; or closed on our side, which waits for the peer to read too."""
    made = BrokerProtocol.__new__(BrokerProtocol)
    made._idle_since = None
    members = {
        "transport": transport,
        "_closed": request.param,
        "_unread": 0,
        "_unread_deadline": 0.0,
        "_phase": None,
        "_deadline": 0.0,
        "_body_receiver": SimpleNamespace(_complete=True),
        "_current_request": object(),
        "_hot": None,
        "req_count": 2,
    }
    for name, value in members.items():
        setattr(made, name, value)
    return made


def sweep(connection: Any, seconds: float, *, start: float = 100.0) -> float:
    """Once a second, as the worker does; when it ends."""
    for second in range(int(seconds)):
        connection.check(start + second)
    return start + int(seconds)


def test_an_answer_that_nobody_reads_does_not_hold_the_connection(connection: Any, transport: Transport) -> None:
    transport.unread = 70_000
    now = sweep(connection, UNREAD_SECONDS - 2)
    assert not transport.aborted
    sweep(connection, 4, start=now)
    assert transport.aborted


def test_a_slow_reader_may_take_its_time(connection: Any, transport: Transport) -> None:
    now = 100.0
    for unread in range(400_000, 0, -50_000):
        transport.unread = unread
        now = sweep(connection, UNREAD_SECONDS - 2, start=now)
    transport.unread = 0
    sweep(connection, 3 * UNREAD_SECONDS, start=now)
    assert not transport.aborted
