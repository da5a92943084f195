"""The fast path: auth, attest and release on the event loop; everything else goes to Flask in a thread.

Both ways run through the same dispatcher. Work that may wait on something outside this process runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kbs.audit.gate import GroupCommit
from kbs.errors import KbsError, MalformedMessage
from kbs.identity.model import HEADER as POD_TOKEN_HEADER
from kbs.web.body import HeldBody, LargeBodies, check_declared, inflate, too_large
from kbs.web.cookies import session_cookie
from kbs.web.dispatch import Dispatcher, Plan, Prepared, bug
from kbs.web.metrics import Metrics
from kbs.web.model import Access, Deferred, HttpRequest, HttpResponse, Listener

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, as on the wire otherwise."""

_FAST = frozenset({Access.PUBLIC, Access.HANDSHAKE, Access.TOKEN})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_POD_TOKEN = POD_TOKEN_HEADER.lower().encode("ascii")
_CLOSED = ("Connection", "close")
_SWALLOWED = 8 << 20  # octets of a refused body
_SWALLOW_SECONDS = 2.0


class BrokerAsgi:
    """One ASGI application per worker process.

    Args:
        fallback: the Flask application as ASGI.
        listeners: local port → which routes answer there; a port that is not listed is a guest's.
        executor: threads for work that may wait.
        handlers: threads for all handlers, where stores are waited for; None: stores answer at once, in the loop.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        gate: GroupCommit,
        fallback: Asgi,
        listeners: Mapping[int, Listener],
        executor: Executor,
        metrics: Metrics,
        handlers: Executor | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._gate = gate
        self._fallback = fallback
        self._listeners = listeners
        self._executor = executor
        self._handlers = handlers
        self.metrics = metrics
        self.bodies = LargeBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _other_than_http(scope, receive, send)
            return
        target = _target(scope)
        server = scope.get("server")
        listener = self._listeners.get(server[1], Listener.GUEST) if server else Listener.GUEST
        try:
            plan = self._dispatcher.plan(scope["method"], target, listener)
        except KbsError as err:
            await _send(scope, send, self._dispatcher.problem(err))
            return
        if plan.route.access not in _FAST or not plan.route.template.startswith("/kbs/"):
            await self._hand_over(plan, scope, target, receive, send)
            return
        client = scope.get("client")
        peer = client[0] if client else None
        response = await self._answer(plan, peer, partial(_read, plan, scope, target, receive, peer))
        await _send(scope, send, response)
        if _CLOSED in response.headers:
            await _swallow(receive)

    def answer_whole(
        self, method: str, target: str, headers: Headers, body: bytes, peer: str | None, port: int | None
    ) -> Awaitable[HttpResponse] | None:
        """The answer to a request that is here as a whole, without the detour through ASGI's messages.

        None: not one of the hot routes, or refused before its body is looked at; the ASGI way answers it.
        """
        listener = self._listeners.get(port, Listener.GUEST) if port is not None else Listener.GUEST
        try:
            plan = self._dispatcher.plan(method, target, listener)
        except KbsError:
            return None
        if plan.route.access not in _FAST or not plan.route.template.startswith("/kbs/"):
            return None
        return self._answer(plan, peer, partial(_whole, plan, method, target, headers, body, peer))

    async def _hand_over(self, plan: Plan, scope: Scope, target: str, receive: Receive, send: Send) -> None:
        """Let Flask answer, with the whole body at hand: its threads are few and never wait for a slow peer."""
        held = self.bodies.hold()
        try:
            await self._hand_over_held(plan, scope, target, receive, send, held)
        finally:
            held.close()

    async def _hand_over_held(
        self, plan: Plan, scope: Scope, target: str, receive: Receive, send: Send, held: HeldBody
    ) -> None:
        try:
            if not target.isascii():
                raise MalformedMessage("the path is not ASCII")
            body = await _read_body(plan, _header(scope, b"content-length"), receive, held)
        except KbsError as err:
            response = self._dispatcher.problem(err, family=plan.route.family)
            await _send(scope, send, response)
            if _CLOSED in response.headers:
                await _swallow(receive)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _FRAMING]
        headers.append((b"content-length", str(len(body)).encode()))

        async def replay() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._fallback({**scope, "headers": headers}, replay, send)

    async def _answer(
        self, plan: Plan, peer: str | None, read: Callable[[HeldBody], HttpRequest | Awaitable[HttpRequest]]
    ) -> HttpResponse:
        """Guards, handler, audit gate. read: gives the request once it may be read."""
        state = _State()
        held: HeldBody | None = (reading := self.bodies.hold())
        start = self.metrics.begin()
        try:
            self._dispatcher.admit(plan, peer)
            incoming = read(reading)
            request = incoming if isinstance(incoming, HttpRequest) else await incoming
            if self._handlers is None:
                state.prepared = prepared = self._dispatcher.prepare(plan, request)
                finish = self._finish(prepared, state)
                is_quick = not isinstance(prepared.outcome, Deferred)
            else:
                finish, is_quick = self._handle(self._handlers, plan, request, state), False
            if reading.size:
                finish, held = _until_done(finish, reading), None
            # a peer that hangs up while evidence is judged spares neither its attempt the record nor us the claim
            response = await (finish if is_quick else asyncio.shield(finish))
        except KbsError as err:
            self.metrics.refused(err)
            family = plan.route.family
            response = self._dispatcher.problem(err, state.prepared, recorded=state.is_recorded, family=family)
        except Exception as err:  # noqa: BLE001 - the wall of this edge: what no other wall caught is our bug
            fault = bug(err)
            self.metrics.refused(fault)
            response = self._dispatcher.problem(fault, state.prepared, family=plan.route.family)
        finally:
            if held is not None:
                held.close()
        self.metrics.end(start, plan.route, response.status)
        return response

    async def _handle(self, threads: Executor, plan: Plan, request: HttpRequest, state: _State) -> HttpResponse:
        """Run the handler in a thread, where it may wait for its stores; then as `_finish`."""
        loop = asyncio.get_running_loop()
        state.prepared = await loop.run_in_executor(threads, self._dispatcher.prepare, plan, request)
        return await self._finish(state.prepared, state)

    async def _finish(self, prepared: Prepared, state: _State) -> HttpResponse:
        """From what a handler left to the answer."""
        outcome = prepared.outcome
        if isinstance(outcome, Deferred):
            outcome = await asyncio.get_running_loop().run_in_executor(self._executor, outcome.work)
        if isinstance(outcome, KbsError):
            raise outcome
        if isinstance(outcome, HttpResponse):
            return outcome
        state.is_recorded = True
        return await self._gate.release(outcome)


async def _until_done(finish: Coroutine[Any, Any, HttpResponse], held: HeldBody) -> HttpResponse:
    """The same; the body counts until it is, also where the peer has hung up."""
    try:
        return await finish
    finally:
        held.close()


@dataclass(slots=True)
class _State:
    """How far a request has come."""

    prepared: Prepared | None = None
    is_recorded: bool = False


def _target(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    target = raw if not query else raw + b"?" + query
    return target.decode("latin-1")


async def _read(
    plan: Plan, scope: Scope, target: str, receive: Receive, peer: str | None, held: HeldBody
) -> HttpRequest:
    fields = _fields(scope["headers"])
    body = await _read_body(plan, fields.length, receive, held)
    return _request(plan, scope["method"], target, fields, body, peer, held)


def _whole(
    plan: Plan, method: str, target: str, headers: Headers, body: bytes, peer: str | None, held: HeldBody
) -> HttpRequest:
    if len(body) > plan.max_body:
        raise too_large(plan.max_body)
    held.grow(len(body))
    return _request(plan, method, target, _fields(headers), body, peer, held)


def _request(
    plan: Plan, method: str, target: str, fields: _Fields, body: bytes, peer: str | None, held: HeldBody
) -> HttpRequest:
    if fields.encoding is not None:
        body = inflate(body, fields.encoding, plan.max_body)
        held.grow(len(body))
    return HttpRequest(
        method,
        target,
        fields.cookie,
        fields.authorization,
        fields.if_match,
        fields.if_none_match,
        body,
        peer,
        fields.pod_token,
    )


class _Fields:
    """The request's header fields that anything here looks at."""

    __slots__ = ("authorization", "cookie", "encoding", "if_match", "if_none_match", "length", "pod_token")

    def __init__(self) -> None:
        self.cookie: str | None = None
        self.authorization: str | None = None
        self.length: str | None = None
        self.encoding: str | None = None
        self.if_match: str | None = None
        self.if_none_match: str | None = None
        self.pod_token: str | None = None


def _fields(headers: Headers) -> _Fields:
    found = _Fields()
    for name, value in headers:
        if name == b"cookie":
            if found.cookie is None:
                found.cookie = session_cookie(value.decode("latin-1"))
        elif name == b"authorization":
            found.authorization = _joined(found.authorization, value)
        elif name == b"content-length":
            found.length = _joined(found.length, value)
        elif name == b"content-encoding":
            found.encoding = _joined(found.encoding, value)
        elif name == b"if-match":
            found.if_match = _joined(found.if_match, value)
        elif name == b"if-none-match":
            found.if_none_match = _joined(found.if_none_match, value)
        elif name == _POD_TOKEN:
            found.pod_token = _joined(found.pod_token, value)
    return found


def _joined(before: str | None, value: bytes) -> str:
    """A field that came twice, as WSGI has it: one text, which then is no good token, number or encoding."""
    text = value.decode("latin-1")
    return text if before is None else f"{before},{text}"


def _header(scope: Scope, wanted: bytes) -> str | None:
    found = None
    for name, value in scope["headers"]:
        if name == wanted:
            found = _joined(found, value)
    return found


async def _read_body(plan: Plan, length: str | None, receive: Receive, held: HeldBody) -> bytes:
    check_declared(length, plan.max_body)
    held.check_declared(length)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedMessage("the body is cut short")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > plan.max_body:
            raise too_large(plan.max_body)
        held.grow(size)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


async def _swallow(receive: Receive) -> None:
    """Read on for a while after refusing a body, so that the peer gets to see the answer and not a reset."""
    left = _SWALLOWED
    with suppress(TimeoutError):
        async with asyncio.timeout(_SWALLOW_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


async def _send(scope: Scope, send: Send, response: HttpResponse) -> None:
    headers = [(b"content-length", str(len(response.body)).encode())]
    if response.content_type is not None:
        headers.append((b"content-type", response.content_type.encode()))
    headers += [(name.lower().encode(), value.encode()) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})


async def _other_than_http(scope: Scope, receive: Receive, send: Send) -> None:
    """There is nothing to start or stop here, and no web socket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
