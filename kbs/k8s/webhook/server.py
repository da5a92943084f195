"""Runs the webhook under gunicorn: one process with threads, TLS whose files may change, metrics apart.

One process, for all of it has to know the same profiles; a second one is a second replica.
"""

from __future__ import annotations

import logging
import math
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from prometheus_client import start_http_server

from kbs import __version__
from kbs.k8s.api import Api
from kbs.k8s.connection import connect
from kbs.k8s.webhook.app import create_app
from kbs.k8s.webhook.cache import ProfileCache
from kbs.k8s.webhook.metrics import Metrics
from kbs.k8s.webhook.watch import Watcher
from kbs.web import log
from kbs.web.certificate import ServedCertificate

_THREADS: Final = 16
_CONNECTIONS: Final = 256
_KEEP_ALIVE: Final = 120  # seconds; API servers end idle connections after 90, and nobody likes to be hung up on
_LOOK_EVERY: Final = 1.0  # seconds, for a new certificate

_LOG = logging.getLogger("kbs.k8s.webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """listen, metrics_listen: HOST:PORT; None: no metrics. kubeconfig: None inside a Pod. max_age: of what is known."""

    listen: str
    metrics_listen: str | None
    certificate: Path
    key: Path
    kubeconfig: Path | None
    max_age: timedelta


class WebhookApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings and nothing from its command line or environment."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._served: ServedCertificate | None = None
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's own configuration files are not read."""
        for name, value in gunicorn_settings(self._settings, self._context).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in the worker, after the fork: threads do not survive one."""
        settings = self._settings
        api: Api = connect(settings.kubeconfig, user_agent=f"kbs-webhook/{__version__}")
        cache = ProfileCache(time.monotonic, settings.max_age.total_seconds())
        metrics = Metrics(cache)
        watcher = Watcher(api, cache)
        watcher.start()
        self._served = ServedCertificate(settings.certificate, settings.key)
        metrics.certificate_expiry.set(self._served.loaded.expires)
        threading.Thread(target=follow, args=(self._served, metrics), name="certificate", daemon=True).start()
        if settings.metrics_listen is not None:
            host, port = address(settings.metrics_listen)
            start_http_server(port, host, metrics.registry)
        return create_app(cache, metrics, watcher.is_alive)

    def _context(self, config: Config, factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Asked for each connection, so a new certificate needs no new listener."""
        del config
        context = factory() if self._served is None else self._served.loaded.context
        context.sslsocket_class = PatientSocket
        return context


class PatientSocket(ssl.SSLSocket):
    """Waits for a peer no longer than an API server waits for us.

    Else a few that say nothing, or a byte now and then, hold all threads.
    """

    patience = 5.0  # seconds, for a handshake and for a whole request
    _until = math.inf

    def do_handshake(self, block: bool = False) -> None:
        """Bounded, too: gunicorn makes it in a thread of its pool."""
        self.settimeout(self.patience)
        super().do_handshake(block)
        self._until = time.monotonic() + self.patience

    def setblocking(self, flag: bool) -> None:
        """gunicorn asks for a socket that blocks before it reads a request."""
        self.settimeout(self.patience if flag else 0.0)
        self._until = time.monotonic() + self.patience

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Of the time for the whole request, what is left."""
        if self.gettimeout() == 0.0:
            return super().recv(buflen, flags)
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request takes too long")
        self.settimeout(min(left, self.patience))
        try:
            return super().recv(buflen, flags)
        finally:
            self.settimeout(self.patience)  # for the answer


def follow(served: ServedCertificate, metrics: Metrics) -> None:
    """Look at the files of the certificate for ever; the only thread that does."""
    while True:
        time.sleep(_LOOK_EVERY)
        change = served.look()
        if change is None:
            continue
        metrics.certificate_expiry.set(change.loaded.expires)
        if change.problem is None:
            _LOG.info("new certificate", extra={"members": {"sha256": change.loaded.fingerprint}})
        else:
            _LOG.warning("the certificate before stays", extra={"members": {"problem": change.problem}})


def gunicorn_settings(settings: WebhookSettings, context: Callable[..., ssl.SSLContext]) -> dict[str, Any]:
    """gunicorn's settings for the webhook's."""
    return {
        "bind": [settings.listen],
        "worker_class": "gthread",
        "workers": 1,
        "threads": _THREADS,
        "worker_connections": _CONNECTIONS,
        "keepalive": _KEEP_ALIVE,
        "certfile": str(settings.certificate),
        "keyfile": str(settings.key),
        "ssl_context": context,
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": "kbs-webhook",
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - gunicorn's heartbeat file
        "graceful_timeout": 20,
    }


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets.

    Raises:
        ValueError: of another form.
    """
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError("no HOST:PORT")
    return host.strip("[]"), int(port)


def serve(settings: WebhookSettings) -> None:
    """Run until a signal; does not return before.

    Raises:
        ConfigInvalid: no way to an API server, or a certificate that does not load; nothing listens.
    """
    log.configure()
    ServedCertificate(settings.certificate, settings.key)  # problems show here, before a worker is forked
    connect(settings.kubeconfig, user_agent=f"kbs-webhook/{__version__}").close()
    WebhookApplication(settings).run()
