"""gunicorn's ASGI worker with the deadlines and bounds that it leaves open (threat-model P-DOS-1 and P-DOS-2).

A peer has 5 s for its TLS hello and 5 s for the head of its first request (between later requests gunicorn's keep-alive
timer runs), the head has 128 KiB in all, a body must come in within 30 s, an answer may lie unread for 30 s, and a
worker takes so many connections and no more. Deadlines are kept by a sweep over open connections once a second, so that
a request pays nothing for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from gunicorn.asgi.protocol import ASGIProtocol, _get_cached_date_header, _get_cached_status_line
from gunicorn.workers.gasgi import ASGIWorker

from kbs.errors import ConfigInvalid, KbsError
from kbs.web.asgi import BrokerAsgi
from kbs.web.certificate import ServedCertificate
from kbs.web.leaving import Leaving
from kbs.web.metrics import Metrics
from kbs.web.model import HttpResponse
from kbs.web.problems import CONTENT_TYPE, unreadable

_LOG = logging.getLogger("kbs.web")
HEAD_LIMIT: Final = 131_072  # octets, request line and final empty line included (KBS protocol 1.1)
HEAD_SECONDS: Final = 5.0
BODY_SECONDS: Final = 30.0
UNREAD_SECONDS: Final = 30.0  # without the peer taking anything of what waits for it
_TLS_SECONDS: Final = 5.0
_TLS_CLOSE_SECONDS: Final = 1.0  # for the peer's close_notify, which one that hangs never sends
_SWEEP_SECONDS: Final = 1.0
_BACKLOG: Final = 1024
FINISH_SECONDS: Final = 20.0  # for what is being answered when nobody is listened to any more
_SERVER: Final = b"Server: kbs\r\n"
_CLOSING: Final = frozenset({413})


class BrokerProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection."""

    def __init__(self, worker: BrokerWorker) -> None:
        super().__init__(worker)
        self._head_size = 0
        self._idle_since: float | None = None
        self._phase: tuple[int, bool] | None = None  # what the last sweep found it waiting for
        self._unread = 0  # octets of answers that the last sweep found waiting for the peer
        self._unread_deadline = 0.0
        self._deadline = 0.0
        self._is_gunicorns = False  # what is being answered is not a hot route

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or drop it when there are too many."""
        super().connection_made(transport)
        self.worker.connections.add(self)
        if self.worker.nr_conns > self.worker.worker_connections:
            self.log.warning("too many connections; one was dropped")
            self._closed = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def _feed_callback_parser(self, data: bytes) -> bool:
        in_head = self._current_request is None
        if not super()._feed_callback_parser(data):
            return False
        if in_head:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT and self._head_octets() > HEAD_LIMIT:
                self._send_error_response(431, "")
                self._close_transport()
                self._request_ready.set()
                return False
            if self._current_request is not None:
                self._head_size = 0
        self._hold_what_follows()
        return True

    def _holds(self) -> bool:
        receiver = self._body_receiver
        return self._is_gunicorns and receiver is not None and receiver._complete

    def _hold_what_follows(self) -> None:
        """Leave the next request to the kernel until gunicorn has ended this one: between writing the answer and that
        end it takes in no more than 64 KiB, and closes a connection on which more came.
        """
        if self._holds():
            self._pause_reading()

    def _maybe_resume_reading(self) -> None:
        if not self._holds():
            super()._maybe_resume_reading()

    def _head_octets(self) -> int:
        """Size of the head so far; once it is complete, without what came in after it."""
        request = self._current_request
        if request is None:
            return self._head_size
        fields = sum(len(name) + len(value) + 4 for name, value in request.headers_bytes)
        return len(request.method) + len(request.uri) + len("  HTTP/1.1\r\n") + fields + 2

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answer a hot route at once when the whole request is here; gunicorn's way answers everything else.

        What it saves is ASGI's scope, messages and a task for each request, about a third of gunicorn's cost.
        Returns whether the connection stays open.
        """
        answer = self._answer_whole(request, sockname, peername)
        if answer is None:
            self._is_gunicorns = True
            self._hold_what_follows()
            try:
                keep: bool = await super()._serve_http_request(request, sockname, peername)
            finally:
                self._is_gunicorns = False
            return keep  # and then gunicorn reads on
        response = await answer
        close = self._will_close(request, False) or response.status in _CLOSING
        if not self._closed:
            self._write_response(request, response, close=close)
            if self._flow_control is not None and self._flow_control.write_paused:
                await self._flow_control.drain()
        return not close

    def _answer_whole(self, request: Any, sockname: Any, peername: Any) -> Awaitable[HttpResponse] | None:
        receiver = self._body_receiver
        if not isinstance(self.app, BrokerAsgi) or receiver is None or not receiver._complete or request.chunked:
            return None
        answer = self.app.answer_whole(
            request.method,
            request.uri,
            request.headers_bytes,
            b"".join(receiver._chunks),
            peername[0] if peername else None,
            sockname[1] if sockname else None,
        )
        if answer is not None:
            receiver._chunks.clear()
            receiver._buffered = 0
            self._maybe_resume_reading()
        return answer

    def _write_response(self, request: Any, response: HttpResponse, *, close: bool) -> None:
        """Status line, fields and body in one write; the fields are our own, so none needs checking here."""
        lines = [_get_cached_status_line(request.version, response.status), _SERVER, _get_cached_date_header()]
        if response.content_type is not None:
            lines.append(b"Content-Type: " + response.content_type.encode() + b"\r\n")
        lines += [f"{name}: {value}\r\n".encode() for name, value in response.headers]
        if close and response.status not in _CLOSING:  # those say so themselves
            lines.append(b"Connection: close\r\n")
        lines.append(b"Content-Length: %d\r\n\r\n" % len(response.body))
        lines.append(response.body)
        self._safe_write(b"".join(lines))

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Refuse what is no request in the form of all other refusals; gunicorn's message quotes what came in."""
        del message
        instance = token_hex(8)
        _LOG.info("unreadable", extra={"members": {"status": status, "instance": instance}})
        response = unreadable(status, instance=instance)
        lines = [_get_cached_status_line((1, 1), response.status), _SERVER, _get_cached_date_header()]
        lines += [f"{name}: {value}\r\n".encode() for name, value in (*response.headers, *extra_headers)]
        lines.append(b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (CONTENT_TYPE.encode(), len(response.body)))
        self._safe_write(b"".join((*lines, response.body)))

    def _arm_keepalive_timer(self) -> None:
        """Nothing but a note: the sweep keeps this deadline too, and a timer for each request would cost more."""
        self._idle_since = self.worker.loop.time()

    def _cancel_keepalive_timer(self) -> None:
        self._idle_since = None

    def check(self, now: float) -> None:
        """Close a connection that has kept us waiting for one head or one body for too long, or reads no answers."""
        if self._lies_unread(now):
            self.transport.abort()  # a mere close would wait for the peer to read
            return
        if self._idle_since is not None and now - self._idle_since >= self._keepalive:
            self.shut()
            return
        receiver = self._body_receiver
        waits_for_body = receiver is not None and not receiver._complete
        waits_for_head = self._current_request is None and self.req_count <= 1
        phase = (self.req_count, waits_for_body) if waits_for_head or waits_for_body else None
        if phase != self._phase:
            self._phase = phase
            self._deadline = now + (BODY_SECONDS if waits_for_body else HEAD_SECONDS) - _SWEEP_SECONDS
        elif phase is not None and now >= self._deadline:
            if waits_for_head and self._head_size:
                self._send_error_response(408, "")
            self.shut()

    def _lies_unread(self, now: float) -> bool:
        """Whether the peer has taken nothing for too long of an answer that waits for it, open or closing."""
        unread = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if unread != self._unread:
            self._unread, self._unread_deadline = unread, now + UNREAD_SECONDS - _SWEEP_SECONDS
        return bool(unread) and now >= self._unread_deadline

    @property
    def is_idle(self) -> bool:
        """Between requests, with nothing of the next one here yet."""
        return self._current_request is None and not self._head_size and not self._finishing_calls

    def shut(self) -> None:
        """Close it and wake whoever waits for it."""
        self._close_transport()
        self._request_ready.set()
        if self._body_receiver is not None:
            self._body_receiver.signal_disconnect()


class BrokerWorker(ASGIWorker):  # type: ignore[misc]
    """One worker process. The application object of its arbiter has `leaving`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[BrokerProtocol] = set()
        self._told = asyncio.Event()
        self._certificate: ServedCertificate | None = None

    def load_wsgi(self) -> None:
        """Wire the broker. While that cannot be done, as when the database is down, wait: gunicorn would take a worker
        that fails to begin for a reason to end all others.
        """
        said = ""
        while self.alive and self.ppid == os.getppid():
            self.notify()
            try:
                super().load_wsgi()
            except KbsError as err:
                problem = err.operator_detail or str(err)
                if problem != said:
                    said = problem
                    _LOG.error("a worker cannot begin yet", extra={"members": {"problem": problem}})
                self.loop.run_until_complete(asyncio.sleep(_SWEEP_SECONDS))  # signals come in meanwhile
            else:
                return
        raise SystemExit(0)

    def handle_exit_signal(self) -> None:
        """SIGTERM: answers say from now on that their connection ends."""
        super().handle_exit_signal()
        self._told.set()

    def handle_quit_signal(self) -> None:
        """SIGINT, SIGQUIT: end now."""
        super().handle_quit_signal()
        self._told.set()

    async def _serve(self) -> None:
        # gunicorn notes on the class it asks whether its C parser is there, and looks for the note on its own class
        ASGIProtocol._check_h1c_protocol_available()
        context = await self._tls()
        if self.cfg.is_ssl and context is None:
            return  # told to end before there was one; plain HTTP on a TLS port would be worse than nothing
        for sock in self.sockets:
            server = await self.loop.create_server(
                lambda: BrokerProtocol(self),
                sock=sock.sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else _TLS_SECONDS,
                ssl_shutdown_timeout=None if context is None else _TLS_CLOSE_SECONDS,
                backlog=_BACKLOG,
            )
            self.servers.append(server)
        while self.alive and self.ppid == os.getppid():
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._told.wait()
            self._sweep()
        await self._linger()
        await self._drain()

    async def _tls(self) -> ssl.SSLContext | None:
        """A worker that begins while the files cannot be used waits for others; those that began before serve on."""
        said = ""
        while self.cfg.is_ssl and self.alive:
            self.notify()
            try:
                self._certificate = ServedCertificate(Path(self.cfg.certfile), Path(self.cfg.keyfile))
            except ConfigInvalid as err:
                if str(err) != said:
                    said = str(err)
                    _LOG.error("no TLS certificate to begin with", extra={"members": {"problem": said}})
                await asyncio.sleep(_SWEEP_SECONDS)
                continue
            if self._metrics is not None:
                self._metrics.show_certificate(self._certificate.loaded.expires)
            return self._certificate.context
        return None

    @property
    def _metrics(self) -> Metrics | None:
        return self.asgi.metrics if isinstance(self.asgi, BrokerAsgi) else None

    def _sweep(self) -> None:
        """What is looked at once a second."""
        self.notify()
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.check(now)
        if self._certificate is not None:
            self._look_at(self._certificate)

    def _look_at(self, certificate: ServedCertificate) -> None:
        change = certificate.look()
        if change is None:
            return
        if self._metrics is not None:
            self._metrics.certificate_changed(change.loaded.expires, usable=change.problem is None)
        shown: dict[str, object] = {"sha256": change.loaded.fingerprint, "expires": int(change.loaded.expires)}
        if change.problem is None:
            _LOG.info("the TLS certificate was replaced", extra={"members": shown})
        else:
            _LOG.error(
                "the changed TLS certificate cannot be used; the one before stays",
                extra={"members": {**shown, "problem": change.problem}},
            )

    async def _linger(self) -> None:
        """Go on serving until those who send guests here know that this service ends. A worker that another replaces
        ends at once: its listeners have others."""
        leaving: Leaving = self.app.leaving
        until = self.loop.time() + leaving.seconds
        while leaving.is_announced and not self._quick_shutdown and self.loop.time() < until:
            await asyncio.sleep(min(_SWEEP_SECONDS, until - self.loop.time()))
            self._sweep()

    async def _drain(self) -> None:
        """Stop listening, let idle peers go, finish what is being answered."""
        for server in self.servers:
            server.close()
        deadline = self.loop.time() + FINISH_SECONDS
        while self.connections and self.loop.time() < deadline and not self._quick_shutdown:
            now = self.loop.time()
            for connection in tuple(self.connections):
                connection.check(now)
                if connection.is_idle:
                    connection.shut()
            self.notify()
            await asyncio.sleep(0.05)
