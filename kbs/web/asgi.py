"""The fast path: auth, attest and release on the event loop; everything else goes to Flask in a thread.

Both ways run through the same dispatcher. Work that may wait on something outside this process runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from typing import Any

from kbs.audit.gate import GroupCommit
from kbs.errors import KbsError, MalformedMessage
from kbs.web.body import check_declared, inflate, too_large
from kbs.web.cookies import session_cookie
from kbs.web.dispatch import Dispatcher, Plan, Prepared
from kbs.web.metrics import Metrics
from kbs.web.model import Access, Deferred, HttpRequest, HttpResponse, Listener

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_FAST = frozenset({Access.PUBLIC, Access.HANDSHAKE, Access.TOKEN})


class BrokerAsgi:
    """One ASGI application per worker process.

    Args:
        fallback: the Flask application as ASGI.
        listeners: local port → which routes answer there; a port that is not listed is a guest's.
        executor: threads for work that may wait.
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
    ) -> None:
        self._dispatcher = dispatcher
        self._gate = gate
        self._fallback = fallback
        self._listeners = listeners
        self._executor = executor
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        target = _target(scope)
        server = scope.get("server")
        listener = self._listeners.get(server[1], Listener.GUEST) if server else Listener.GUEST
        try:
            plan = self._dispatcher.plan(scope["method"], target, listener)
        except KbsError as err:
            await _send(send, self._dispatcher.problem(err))
            return
        if plan.route.access not in _FAST or not plan.route.template.startswith("/kbs/"):
            if not target.isascii():
                await _send(send, self._dispatcher.problem(MalformedMessage("the path is not ASCII")))
                return
            await self._fallback(scope, receive, send)
            return
        with self._metrics.request(plan.route):
            response = await self._answer(plan, scope, target, receive)
        await _send(send, response)

    async def _answer(self, plan: Plan, scope: Scope, target: str, receive: Receive) -> HttpResponse:
        prepared: Prepared | None = None
        recorded = False
        try:
            request = await _read(plan, scope, target, receive)
            prepared = self._dispatcher.prepare(plan, request)
            outcome = prepared.outcome
            if isinstance(outcome, Deferred):
                outcome = await asyncio.get_running_loop().run_in_executor(self._executor, outcome.work)
            if isinstance(outcome, KbsError):
                raise outcome
            if isinstance(outcome, HttpResponse):
                response = outcome
            else:
                recorded = True
                response = await self._gate.release(outcome)
        except KbsError as err:
            response = self._dispatcher.problem(err, prepared, recorded=recorded, family=plan.route.family)
        self._metrics.outcome(plan.route, response.status)
        return response


def _target(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    target = raw if not query else raw + b"?" + query
    return target.decode("latin-1")


async def _read(plan: Plan, scope: Scope, target: str, receive: Receive) -> HttpRequest:
    cookie = authorization = length = encoding = if_match = if_none_match = None
    for name, value in scope["headers"]:
        match name:
            case b"cookie":
                cookie = session_cookie(value.decode("latin-1")) if cookie is None else cookie
            case b"authorization":
                authorization = value.decode("latin-1")
            case b"content-length":
                length = value.decode("latin-1")
            case b"content-encoding":
                encoding = value.decode("latin-1")
            case b"if-match":
                if_match = value.decode("latin-1")
            case b"if-none-match":
                if_none_match = value.decode("latin-1")
    check_declared(length, plan.max_body)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        chunks = [body]
        size = len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MalformedMessage("the body is cut short")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > plan.max_body:
                raise too_large(plan.max_body)
        body = b"".join(chunks)
    if len(body) > plan.max_body:
        raise too_large(plan.max_body)
    if encoding is not None:
        body = inflate(body, encoding, plan.max_body)
    client = scope.get("client")
    return HttpRequest(
        scope["method"], target, cookie, authorization, if_match, if_none_match, body, client[0] if client else None
    )


async def _send(send: Send, response: HttpResponse) -> None:
    headers = [(b"content-length", str(len(response.body)).encode())]
    if response.content_type is not None:
        headers.append((b"content-type", response.content_type.encode()))
    headers += [(name.encode(), value.encode()) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
