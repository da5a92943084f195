"""gunicorn's ASGI worker with the deadlines and bounds that it leaves open (threat-model P-DOS-1 and P-DOS-2).

A worker takes so many connections and no more; a peer has 5 s for its TLS hello. Deadlines of connections
(`kbs.web.connection`) are kept by a sweep over them once a second, so that a request pays nothing for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker

from kbs.errors import ConfigInvalid, KbsError
from kbs.web.asgi import BrokerAsgi
from kbs.web.certificate import ServedCertificate
from kbs.web.connection import SWEEP_SECONDS, BrokerProtocol
from kbs.web.leaving import Leaving
from kbs.web.metrics import Metrics

_LOG = logging.getLogger("kbs.web")
FINISH_SECONDS: Final = 20.0  # for what is being answered when nobody is listened to any more
_TLS_SECONDS: Final = 5.0
_TLS_CLOSE_SECONDS: Final = 1.0  # for the peer's close_notify, which one that hangs never sends
_BACKLOG: Final = 1024


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
                self.loop.run_until_complete(asyncio.sleep(SWEEP_SECONDS))  # signals come in meanwhile
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
                async with asyncio.timeout(SWEEP_SECONDS):
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
                await asyncio.sleep(SWEEP_SECONDS)
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
            await asyncio.sleep(min(SWEEP_SECONDS, until - self.loop.time()))
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
