"""HTTP for `rvps.server.web`, by uvicorn in a thread: body limits, deadlines, TLS, an end that waits for requests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from rvps.errors import SettingsUnacceptable
from rvps.rest import MAX_MESSAGE, Answer
from rvps.server.web import Request, Web, problem

_BODY_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 10
_KEEP_ALIVE_SECONDS: Final = 75  # brokers poll twice a second over one connection
_HEAD_LIMIT: Final = 32 << 10  # octets
_HEAD_SECONDS: Final = 5.0  # between two looks; whoever was awaited at both is not waited for
_CONNECTIONS: Final = 1000

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Application:
    """ASGI 3, HTTP only. Requests are answered in a thread, because the store may make them wait."""

    def __init__(self, web: Web, threads: Executor) -> None:
        self._web = web
        self._threads = threads

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _body(receive, headers.get("content-length"))
        except TimeoutError:
            await _send(send, problem(408, "MalformedRequest", "the body took too long"), close=True)
            return
        if body is None:
            await _send(send, problem(413, "PayloadTooLarge", f"more than {MAX_MESSAGE} octets"), close=True)
            return
        query = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        request = Request(scope["method"], target, headers, body)
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._web.answer, request)
        await _send(send, answer, close=False)


async def _body(receive: Receive, declared: str | None) -> bytes | None:
    """The whole body, or None if it is too large."""
    if declared is not None and (not declared.isdigit() or len(declared) > 12 or int(declared) > MAX_MESSAGE):
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        part = event.get("body", b"")
        size += len(part)
        if size > MAX_MESSAGE:
            return None
        parts.append(part)
        if not event.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, answer: Answer, *, close: bool) -> None:
    headers = [(b"content-type", answer.content_type.encode())] if answer.status != 304 else []
    headers += [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        SettingsUnacceptable: the address is in use, or not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as err:
        raise SettingsUnacceptable(f"{host}:{port}: {err.strerror}") from err
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as err:
        listening.close()
        raise SettingsUnacceptable(f"{host}:{port}: {err.strerror}") from err
    return listening


class Connection(H11Protocol):
    """One connection, with what uvicorn leaves open: an end to waiting for a head, and room for whoever comes next.

    uvicorn's own limit answers 503 to everybody once there are so many connections, and who sends nothing is counted:
    a thousand idle sockets of a stranger would keep every broker from its snapshot. Here the one that was silent
    longest makes room.
    """

    def connection_made(self, transport: Any) -> None:
        """Somebody is here."""
        self._active = self.loop.time()
        self._awaited: object = None  # the last request that was answered when a next head was awaited
        if len(self.connections) >= _CONNECTIONS:
            idle = [each for each in self.connections if isinstance(each, Connection) and each.waits]
            if not idle:
                transport.abort()
                return
            oldest = min(idle, key=lambda each: each._active)
            self.connections.discard(oldest)
            oldest.transport.abort()
        super().connection_made(transport)
        self._look = self.loop.call_later(_HEAD_SECONDS, self._look_after)

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        self._active = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self.transport is not None:  # else it was never let in
            self._look.cancel()
            super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether no request is being read or answered."""
        request: RequestResponseCycle | None = self.cycle
        return request is None or request.response_complete

    def _look_after(self) -> None:
        # Between requests uvicorn's own timer runs, until the first byte of the next head.
        awaited = (self.cycle,) if self.waits and self.timeout_keep_alive_task is None else None
        if awaited is not None and awaited == self._awaited:
            self.transport.abort()
            return
        self._awaited = awaited
        self._look = self.loop.call_later(_HEAD_SECONDS, self._look_after)


class HttpServer:
    """uvicorn in a thread of its own, on a socket that is bound already.

    Args:
        tls: certificate and key, PEM; None: plain HTTP.
    """

    def __init__(self, application: Application, listening: socket.socket, tls: tuple[Path, Path] | None) -> None:
        config = uvicorn.Config(
            application,
            lifespan="off",
            ws="none",
            http=Connection,
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_LIMIT,
            ssl_certfile=None if tls is None else tls[0],
            ssl_keyfile=None if tls is None else tls[1],
        )
        config.load()  # a certificate that does not load is an error here, not in the thread
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._thread = threading.Thread(target=self._run, name="rest", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take no new connection, finish open requests, return."""
        self._server.should_exit = True
        self._thread.join(_GRACE_SECONDS + 5)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listening]))
