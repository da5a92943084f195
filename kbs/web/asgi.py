"""The fast path: auth, attest and release on the event loop; everything else goes to Flask in a thread.

Both ways run through the same dispatcher. Work that may wait on something outside this process runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from kbs.errors import KbsError, MalformedMessage
from kbs.identity.model import HEADER as POD_TOKEN_HEADER
from kbs.web.body import HeldBody, LargeBodies, check_declared, inflate, too_large
from kbs.web.cookies import session_cookie
from kbs.web.dispatch import Plan
from kbs.web.exchange import Done, Exchange, Stations
from kbs.web.model import Access, HttpRequest, HttpResponse, Listener

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, as on the wire otherwise."""

_FAST = frozenset({Access.PUBLIC, Access.HANDSHAKE, Access.TOKEN})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_CLOSED = ("Connection", "close")
_PLANS = 1024  # kept, of targets of at most so many characters
_PLANNED = 256
_SWALLOWED = 8 << 20  # octets of a refused body
_SWALLOW_SECONDS = 2.0


class BrokerAsgi:
    """One ASGI application per worker process.

    Args:
        stations: what hot requests pass.
        fallback: the Flask application as ASGI.
        listeners: local port → which routes answer there; a port that is not listed is a guest's.
    """

    def __init__(self, *, stations: Stations, fallback: Asgi, listeners: Mapping[int, Listener]) -> None:
        self._stations = stations
        self._dispatcher = stations.dispatcher
        self._known_plan = lru_cache(maxsize=_PLANS)(self._hot_plan)
        self._fallback = fallback
        self._listeners = listeners
        self.metrics = stations.metrics
        self.bodies = LargeBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _other_than_http(scope, receive, send)
            return
        target = _target(scope)
        server = scope.get("server")
        try:
            plan = self._dispatcher.plan(scope["method"], target, self.listener(server[1] if server else None))
        except KbsError as err:
            await _send(scope, send, self._dispatcher.problem(err))
            return
        if not _is_hot(plan):
            await self._hand_over(plan, scope, target, receive, send)
            return
        client = scope.get("client")
        response = await self._answer(plan, scope, target, receive, client[0] if client else None)
        await _send(scope, send, response)
        if _CLOSED in response.headers:
            await _swallow(receive)

    def hot_plan(self, method: str, target: str, listener: Listener) -> Plan | None:
        """The plan of a hot route. None: not one, or refused before its body is looked at; the ASGI way answers it."""
        if len(target) <= _PLANNED and "?" not in target:
            return self._known_plan(method, target, listener)
        return self._hot_plan(method, target, listener)

    def _hot_plan(self, method: str, target: str, listener: Listener) -> Plan | None:
        try:
            plan = self._dispatcher.plan(method, target, listener)
        except KbsError:
            return None
        return plan if _is_hot(plan) else None

    def listener(self, port: int | None) -> Listener:
        """Which routes answer on a local port."""
        return Listener.GUEST if port is None else self._listeners.get(port, Listener.GUEST)

    def answer(self, plan: Plan, request: HttpRequest, done: Done) -> None:
        """Answer a request of a hot route that is here as a whole, with a body of at most `SMALL` octets.

        request: its body is within the plan's limit and not packed.
        done: gets the answer, once, in this loop; perhaps before this returns.
        """
        exchange = Exchange(self._stations, plan, done)
        try:
            exchange.admit(request.peer)
        except KbsError as err:
            exchange.refuse(err)
        else:
            exchange.run(request)

    async def _answer(self, plan: Plan, scope: Scope, target: str, receive: Receive, peer: str | None) -> HttpResponse:
        """The same for one whose body is read first. The body counts until it is answered, peer or no peer."""
        held = self.bodies.hold()
        future: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

        def done(response: HttpResponse) -> None:
            held.close()
            if not future.done():
                future.set_result(response)

        exchange = Exchange(self._stations, plan, done)
        try:
            exchange.admit(peer)
            request = await _read(plan, scope, target, receive, peer, held)
        except Exception as err:  # noqa: BLE001 - the wall of this edge; `refuse` tells refusals from our bugs
            exchange.refuse(err)
        except BaseException:  # gunicorn gave it up, long after the peer hung up
            held.close()
            exchange.abandon()
            raise
        else:
            exchange.run(request)
        return await future

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


def _is_hot(plan: Plan) -> bool:
    return plan.route.access in _FAST and plan.route.template.startswith("/kbs/")


def _target(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    target = raw if not query else raw + b"?" + query
    return target.decode("latin-1")


async def _read(
    plan: Plan, scope: Scope, target: str, receive: Receive, peer: str | None, held: HeldBody
) -> HttpRequest:
    fields = Fields.of(scope["headers"])
    body = await _read_body(plan, fields.length, receive, held)
    if fields.encoding is not None:
        body = inflate(body, fields.encoding, plan.max_body)
        held.grow(len(body))
    return fields.request(scope["method"], target, body, peer)


_TEXTS = {
    b"authorization": "authorization",
    b"content-length": "length",
    b"content-encoding": "encoding",
    b"if-match": "if_match",
    b"if-none-match": "if_none_match",
    POD_TOKEN_HEADER.lower().encode("ascii"): "pod_token",
}
_UNCOMMON = frozenset({b"expect", b"upgrade", b"transfer-encoding"})


class Fields:
    """The request's header fields that anything on a hot route looks at.

    is_uncommon: there is one that asks for more than an answer, or frames the body otherwise than by its length.
    """

    __slots__ = (
        "authorization",
        "cookie",
        "encoding",
        "if_match",
        "if_none_match",
        "is_uncommon",
        "length",
        "pod_token",
    )

    def __init__(self) -> None:
        self.cookie: str | None = None
        self.authorization: str | None = None
        self.length: str | None = None
        self.encoding: str | None = None
        self.if_match: str | None = None
        self.if_none_match: str | None = None
        self.pod_token: str | None = None
        self.is_uncommon = False

    @classmethod
    def of(cls, headers: Headers) -> Fields:
        """Read them."""
        found = cls()
        for name, value in headers:
            member = _TEXTS.get(name)
            if member is not None:
                setattr(found, member, _joined(getattr(found, member), value))
            elif name == b"cookie":
                if found.cookie is None:
                    found.cookie = session_cookie(value.decode("latin-1"))
            elif name in _UNCOMMON:
                found.is_uncommon = True
        return found

    def request(self, method: str, target: str, body: bytes, peer: str | None) -> HttpRequest:
        """The request that they belong to; its body is unpacked."""
        return HttpRequest(
            method,
            target,
            self.cookie,
            self.authorization,
            self.if_match,
            self.if_none_match,
            body,
            peer,
            self.pod_token,
        )


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
