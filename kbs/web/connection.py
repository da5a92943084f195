"""One connection: gunicorn's, with the bounds that it leaves open, and a short way for hot requests.

A peer has 5 s for the head of its first request (between later requests the keep-alive time runs), the head has 128 KiB
in all, a body must come in within 30 s, an answer may lie unread for 30 s (threat-model P-DOS-1 and P-DOS-2).

A request of a hot route that is framed by its length and not large is answered here, from the parser's callbacks:
without a task, and without ASGI's scope and messages. gunicorn's own way serves everything else on the same connection.
While a hot request is answered nothing of the next one is parsed, and the kernel keeps what follows.
"""

from __future__ import annotations

import logging
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from gunicorn.asgi.protocol import ASGIProtocol, _get_cached_date_header, _get_cached_status_line
from msgspec import Struct

from kbs.web.asgi import BrokerAsgi, Fields
from kbs.web.body import SMALL
from kbs.web.dispatch import Plan
from kbs.web.model import HttpResponse, Listener
from kbs.web.problems import CONTENT_TYPE, unreadable

if TYPE_CHECKING:
    from kbs.web.worker import BrokerWorker

_LOG = logging.getLogger("kbs.web")
HEAD_LIMIT: Final = 131_072  # octets, request line and final empty line included (KBS protocol 1.1)
HEAD_SECONDS: Final = 5.0
BODY_SECONDS: Final = 30.0
UNREAD_SECONDS: Final = 30.0  # without the peer taking anything of what waits for it
SWEEP_SECONDS: Final = 1.0  # between two calls of `check`
_SERVER: Final = b"Server: kbs\r\n"
_CLOSING: Final = frozenset({413})
_HTTP: Final = (1, 1)
_ODD_IN_TARGET: Final = re.compile(rb"[^\x21-\x7e]")  # gunicorn refuses it (RFC 9112 section 3.2)


class _HotRequest(Struct):
    """One that is answered here."""

    plan: Plan
    method: str
    target: str
    fields: Fields
    is_last: bool  # the peer wants no more on this connection
    chunks: list[bytes] = []
    is_whole: bool = False
    is_answered: bool = False


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
        self._is_gunicorns = False  # what is being answered is gunicorn's
        self._hot: _HotRequest | None = None
        self._early = b""  # what came in while a hot request was answered
        self._is_feeding = False
        self._peer: str | None = None
        self._listener = Listener.GUEST

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or drop it when there are too many."""
        super().connection_made(transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._peer = peer[0] if peer else None
        if isinstance(self.app, BrokerAsgi):
            self._listener = self.app.listener(local[1] if local else None)
        self.worker.connections.add(self)
        if self.worker.nr_conns > self.worker.worker_connections:
            self.log.warning("too many connections; one was dropped")
            self._closed = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take octets in; those that come while a hot request is answered wait for their turn."""
        if self._hot is not None and self._hot.is_whole:
            self._early += data
            self._pause_reading()
        else:
            super().data_received(data)

    def _feed_callback_parser(self, data: bytes) -> bool:
        while data:
            if not self._feed(data):
                return False
            if self._hot is None or not self._hot.is_whole:
                self._hold_what_follows()
                return True
            data = self._answer(self._hot)
        return not self._closed

    def _feed(self, data: bytes) -> bool:
        in_head = self._current_request is None
        if not super()._feed_callback_parser(data):
            return False
        if in_head:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT and self._head_octets() > HEAD_LIMIT:
                self._send_error_response(431, "")
                self._hot = None
                self.shut()
                return False
            if self._current_request is not None:
                self._head_size = 0
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
        if self._current_request is None:
            return self._head_size
        parser = self._callback_parser
        fields = sum(len(name) + len(value) + 4 for name, value in _headers(parser))
        return len(parser.method) + len(parser.path) + len("  HTTP/1.1\r\n") + fields + 2

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        self._is_gunicorns = True
        self._hold_what_follows()
        try:
            keep: bool = await super()._serve_http_request(request, sockname, peername)
        finally:
            self._is_gunicorns = False
        return keep  # and then gunicorn reads on

    # --- hot requests -------------------------------------------------------------------------------------------------

    def _on_headers_complete(self) -> bool:
        hot = self._hot_request()
        if hot is None:
            return bool(super()._on_headers_complete())
        self._hot = hot
        self._current_request: Any = hot
        self._idle_since = None
        return False  # a body may follow

    def _hot_request(self) -> _HotRequest | None:
        """What is to be answered here. None: gunicorn's, with all that it looks at and refuses."""
        parser = self._callback_parser
        length = parser.content_length or 0
        if parser.http_version != _HTTP or parser.is_chunked or length > SMALL or not isinstance(self.app, BrokerAsgi):
            return None
        fields = Fields.of(_headers(parser))
        if fields.is_uncommon or fields.encoding is not None or _ODD_IN_TARGET.search(parser.path):
            return None
        method, target = parser.method.decode("ascii"), parser.path.decode("ascii")
        plan = self.app.hot_plan(method, target, self._listener)
        if plan is None or length > plan.max_body:
            return None
        return _HotRequest(plan, method, target, fields, not parser.should_keep_alive)

    def _on_body(self, chunk: bytes) -> None:
        if self._hot is not None:
            self._hot.chunks.append(chunk)
        else:
            super()._on_body(chunk)

    def _on_message_complete(self) -> None:
        if self._hot is not None:
            self._hot.is_whole = True  # answered when the parser has returned: what follows is then known
        else:
            super()._on_message_complete()

    def _answer(self, hot: _HotRequest) -> bytes:
        """Have it answered; what the peer sent after it, once it is."""
        request = hot.fields.request(hot.method, hot.target, b"".join(hot.chunks), self._peer)
        hot.chunks.clear()
        self._is_feeding = True
        try:
            self.app.answer(hot.plan, request, self._answered)
        finally:
            self._is_feeding = False
        return self._following() if self._hot is None else b""

    def _answered(self, response: HttpResponse) -> None:
        hot = self._hot
        if hot is None or self._closed:  # the peer is gone
            return
        close = hot.is_last or response.status in _CLOSING or not (self.worker.alive and self._keepalive)
        self._write_response(response, close=close)
        self.worker.nr += 1
        if close:
            self.shut()
            return
        hot.is_answered = True
        if not self._flow_control.write_paused:
            self._end_hot()

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._hot is not None and self._hot.is_answered:
            self._end_hot()

    def _end_hot(self) -> None:
        """The answer is on its way: the next request, please."""
        self._hot = None
        self._current_request = None
        self.req_count += 1
        self._idle_since = self.worker.loop.time()
        if not self._is_feeding:
            self._feed_callback_parser(self._following())

    def _following(self) -> bytes:
        """What came in after the request that was just answered."""
        parser = self._callback_parser
        if self._closed or getattr(parser, "remaining_truncated", False):
            self.shut()
            return b""
        following: bytes = parser.remaining() + self._early
        self._early = b""
        parser.reset()
        self._resume_reading()
        return following

    # --- answers ------------------------------------------------------------------------------------------------------

    def _write_response(self, response: HttpResponse, *, close: bool) -> None:
        """Status line, fields and body in one write; the fields are our own, so none needs checking here."""
        lines = [_get_cached_status_line(_HTTP, response.status), _SERVER, _get_cached_date_header()]
        if response.content_type is not None:
            lines.append(b"Content-Type: %b\r\n" % response.content_type.encode())
        for name, value in response.headers:
            lines.append(f"{name}: {value}\r\n".encode())
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
        lines = [_get_cached_status_line(_HTTP, response.status), _SERVER, _get_cached_date_header()]
        lines += [f"{name}: {value}\r\n".encode() for name, value in (*response.headers, *extra_headers)]
        lines.append(b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (CONTENT_TYPE.encode(), len(response.body)))
        self._safe_write(b"".join((*lines, response.body)))

    def _arm_keepalive_timer(self) -> None:
        """Nothing but a note: the sweep keeps this deadline too, and a timer for each request would cost more."""
        if self._hot is None:
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
        waits_for_body = not (self._hot.is_whole if self._hot is not None else receiver is None or receiver._complete)
        waits_for_head = self._current_request is None and self.req_count <= 1
        phase = (self.req_count, waits_for_body) if waits_for_head or waits_for_body else None
        if phase != self._phase:
            self._phase = phase
            self._deadline = now + (BODY_SECONDS if waits_for_body else HEAD_SECONDS) - SWEEP_SECONDS
        elif phase is not None and now >= self._deadline:
            if waits_for_head and self._head_size:
                self._send_error_response(408, "")
            self.shut()

    def _lies_unread(self, now: float) -> bool:
        """Whether the peer has taken nothing for too long of an answer that waits for it, open or closing."""
        unread = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if unread != self._unread:
            self._unread, self._unread_deadline = unread, now + UNREAD_SECONDS - SWEEP_SECONDS
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


def _headers(parser: Any) -> list[tuple[bytes, bytes]]:
    """Names in lower case; the parser in C keeps those as received beside them."""
    found: list[tuple[bytes, bytes]] = getattr(parser, "asgi_headers", None) or parser.headers
    return found
