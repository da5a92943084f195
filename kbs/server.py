"""Runs a broker under gunicorn: its ASGI worker, one process per core, TLS, bounded heads and connections.

Every worker wires a broker of its own after the fork, so no connection, thread or compiled module crosses one.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import logging
import os
import resource
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.config import Config

from kbs import __version__
from kbs.app import Broker, build
from kbs.audit.events import ServiceStarted
from kbs.config import Settings
from kbs.errors import KbsError
from kbs.web.asgi import BrokerAsgi
from kbs.web.log import JsonFormatter
from kbs.web.worker import HEAD_LIMIT, BrokerWorker

_FIELDS = 96
_SWEEP_EVERY = 30  # seconds
_WARN_EVERY = 3600  # seconds
_GC_THRESHOLD = 20_000  # allocations: requests make no cycles, so looking for them seldom is enough
_KEEP_ALIVE = 5  # seconds

_PR_SET_DUMPABLE = 4  # prctl(2)

_LOG = logging.getLogger("kbs")


class BrokerApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings and nothing from its command line or environment."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self._data = data
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Translate settings; gunicorn's own configuration files are not read."""
        for name, value in gunicorn_settings(self._data, self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> BrokerAsgi:
        """Called in each worker after the fork."""
        shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # noqa: TID251 - set by `serve` for its own workers
        broker = build(self._data, self._settings, shared_metrics=shared)
        with suppress(KbsError):  # a broker with a broken policy comes up, for an administrator to mend it
            broker.warm()
        threading.Thread(target=_look_after, args=(broker,), name="beside", daemon=True).start()
        atexit.register(broker.close)  # signs what the audit log still holds unsigned
        gc.collect()
        gc.freeze()  # what is here now stays; the collector need not look at it again
        gc.set_threshold(_GC_THRESHOLD)
        return broker.asgi()


def _look_after(broker: Broker) -> None:
    """What goes on beside requests, for as long as the process lives: the metrics of quiet times, compiling rules that
    changed, forgetting expired handshakes, the hourly reminder of what is insecure."""
    for seconds in itertools.count(1):
        time.sleep(1)
        try:
            broker.metrics.flush()
            broker.warm()
            if seconds % _SWEEP_EVERY == 0:
                broker.handshakes.sweep(broker.clock())
        except Exception as err:  # noqa: BLE001 - the wall: one bad round must not be the last
            _LOG.warning("a round beside the requests failed", extra={"members": {"error": type(err).__name__}})
        if seconds % _WARN_EVERY == 0:
            _warn(broker.settings.insecure_switches())


def _warn(switches: Sequence[str]) -> None:
    for switch in switches:
        _LOG.warning("insecure setting is on", extra={"members": {"switch": switch}})


def gunicorn_settings(data: Path, settings: Settings) -> dict[str, Any]:
    """gunicorn's settings for a broker's."""
    server = settings.server
    extra = [address for address in (server.admin_listen, server.metrics_listen) if address is not None]
    found: dict[str, Any] = {
        "bind": [*server.listen, *extra],
        "worker_class": BrokerWorker,
        "workers": server.workers or (1 if settings.storage.kind == "memory" else os.cpu_count() or 1),
        "worker_connections": server.max_connections,
        "asgi_loop": "uvloop",
        "asgi_lifespan": "off",
        "http_parser": "auto",  # in C where gunicorn-h1c is installed
        "keepalive": _KEEP_ALIVE,
        "limit_request_line": 65_534,
        "limit_request_field_size": HEAD_LIMIT,
        "limit_request_fields": _FIELDS,
        "control_socket_disable": True,
        "loglevel": "warning",
        "logconfig_dict": _logging(),
        "proc_name": "kbs",
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - gunicorn's heartbeat file
        "graceful_timeout": 20,
    }
    if not server.insecure_http:
        found["certfile"] = str(data / server.tls_certificate)
        found["keyfile"] = str(data / server.tls_key)
        found["ssl_context"] = _ssl_context
    return found


def serve(data: Path, settings: Settings) -> None:
    """Run until a signal; does not return before.

    Raises:
        ConfigInvalid, DependencyFault: the broker cannot be wired; nothing listens.
    """
    keep_memory_private()
    broker = build(data, settings)  # every problem shows here, before a worker is forked
    insecure = settings.insecure_switches()
    event = ServiceStarted(decision=os.urandom(16).hex(), version=__version__, insecure=insecure)
    broker.audit.append([event])
    broker.close()
    _warn(insecure)
    with tempfile.TemporaryDirectory(prefix="kbs-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # noqa: TID251 - how prometheus_client is told
        BrokerApplication(data, settings).run()


def keep_memory_private() -> None:
    """No core files, and nobody of the same user may read this process's memory; workers inherit both (P-MEM-1)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        _LOG.warning("memory stays readable to debuggers", extra={"members": {"errno": ctypes.get_errno()}})


def _ssl_context(_: Config, default_ssl_context_factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """TLS 1.2 and 1.3."""
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _logging() -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
    }
