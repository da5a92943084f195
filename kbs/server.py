"""Runs a broker under gunicorn: its ASGI worker, one process per core, TLS, bounded heads and connections.

Every worker wires a broker of its own after the fork, so no connection, thread or compiled module crosses one.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import logging
import math
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from kbs import __version__
from kbs.app import Broker, build
from kbs.audit.events import ServiceStarted
from kbs.audit.log import LogTail
from kbs.config import Settings
from kbs.errors import KbsError
from kbs.processors import usable_processors
from kbs.web import certificate
from kbs.web.asgi import BrokerAsgi
from kbs.web.connection import HEAD_LIMIT
from kbs.web.leaving import Leaving
from kbs.web.log import JsonFormatter
from kbs.web.worker import FINISH_SECONDS, BrokerWorker

_FIELDS = 96
_SWEEP_EVERY = 30  # seconds
_WARN_EVERY = 3600  # seconds
_GC_THRESHOLD = 20_000  # allocations: requests make no cycles, so looking for them seldom is enough
_KEEP_ALIVE = 5  # seconds
_KILL_AFTER = 2  # seconds beyond those that a worker gives itself
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - files in memory, also where everything else is read-only

_PR_SET_DUMPABLE = 4  # prctl(2)

_LOG = logging.getLogger("kbs")


class BrokerApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings and nothing from its command line or environment."""

    def __init__(self, data: Path, settings: Settings, audit_tail: LogTail | None) -> None:
        """audit_tail: how far this process read the audit log, which workers need not read again."""
        self._data = data
        self._settings = settings
        self._audit_tail = audit_tail
        self.leaving = Leaving(settings.server.drain_seconds)
        super().__init__()

    def load_config(self) -> None:
        """Translate settings; gunicorn's own configuration files are not read."""
        for name, value in gunicorn_settings(self._data, self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> BrokerAsgi:
        """Called in each worker after the fork."""
        shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # noqa: TID251 - set by `serve` for its own workers
        broker = build(
            self._data, self._settings, shared_metrics=shared, leaving=self.leaving, audit_tail=self._audit_tail
        )
        with suppress(KbsError):  # a broker with a broken policy comes up, for an administrator to mend it
            broker.warm()
        with suppress(KbsError):  # guests will be told
            broker.handshakes.look()
        threading.Thread(target=_look_after, args=(broker,), name="beside", daemon=True).start()
        atexit.register(broker.close)  # signs what the audit log still holds unsigned
        _settle_memory()
        gc.set_threshold(_GC_THRESHOLD)
        return broker.asgi()

    def run(self) -> None:
        """Until a signal."""
        BrokerArbiter(self).run()

    def check(self) -> None:
        """Whether a worker that begins now would come up: keys, certificate, store.

        Raises:
            KbsError: it would not.
        """
        _check_certificate(self._data, self._settings)
        broker = build(self._data, self._settings, audit_tail=self._audit_tail)
        self._audit_tail = broker.audit_tail
        broker.close()
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # this process serves nobody


class BrokerArbiter(Arbiter):  # type: ignore[misc]
    """The process that starts workers and ends them."""

    def stop(self, graceful: bool = True) -> None:
        """Let workers know that nobody follows them, then end them."""
        if graceful:
            self.app.leaving.announce()
        super().stop(graceful)

    def reload(self) -> None:
        """SIGHUP: workers that read keys anew take over from those there are, if they can come up."""
        try:
            self.app.check()
        except KbsError as err:
            _LOG.error("SIGHUP: the workers stay as they are", extra={"members": {"problem": str(err)}})
            return
        super().reload()


def _look_after(broker: Broker) -> None:
    """What goes on beside requests, for as long as the process lives: the metrics of quiet times, compiling rules that
    changed, following the audit log and other workers' handshakes, forgetting expired ones, the hourly reminder of what
    is insecure."""
    for seconds in itertools.count(1):
        time.sleep(1)
        for duty in (broker.metrics.flush, broker.warm, broker.audit.look, broker.handshakes.look):
            _attempt(duty)
        if seconds % _SWEEP_EVERY == 0:
            _attempt(lambda: broker.handshakes.sweep(broker.clock()))
        if seconds % _WARN_EVERY == 0:
            _warn(broker.settings.insecure_switches())


def _attempt(duty: Callable[[], object]) -> None:
    try:
        duty()
    except Exception as err:  # noqa: BLE001 - the wall: one bad round must not be the last, nor stop other duties
        members = {"error": type(err).__name__}
        if isinstance(err, KbsError):
            members["detail"] = err.operator_detail or str(err)
        _LOG.warning("a round beside the requests failed", extra={"members": members})


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
        "workers": server.workers or (1 if settings.storage.kind == "memory" else usable_processors()),
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
        "worker_tmp_dir": _memory_folder(),  # gunicorn's heartbeat file
        "graceful_timeout": math.ceil(server.drain_seconds + FINISH_SECONDS + _KILL_AFTER),
        "child_exit": _forget_gauges,
    }
    if not server.insecure_http:
        found["certfile"] = str(data / server.tls_certificate)
        found["keyfile"] = str(data / server.tls_key)
    return found


def serve(data: Path, settings: Settings) -> None:
    """Run until a signal; does not return before.

    Raises:
        ConfigInvalid, DependencyFault: the broker cannot be wired; nothing listens.
    """
    keep_memory_private()
    _check_certificate(data, settings)
    broker = build(data, settings)  # every problem shows here, before a worker is forked
    insecure = settings.insecure_switches()
    event = ServiceStarted(decision=os.urandom(16).hex(), version=__version__, insecure=insecure)
    broker.audit.append([event])
    audit_tail = broker.audit_tail
    broker.close()
    del broker
    _settle_memory()
    _warn(insecure)
    folder, owner = tempfile.mkdtemp(prefix="kbs-metrics-", dir=_memory_folder()), os.getpid()
    try:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # noqa: TID251 - how prometheus_client is told
        # it chose when it was imported, and no folder was known then
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        BrokerApplication(data, settings, audit_tail).run()
    finally:
        if os.getpid() == owner:  # workers are forked in there, and come by here when they end
            shutil.rmtree(folder, ignore_errors=True)


def _check_certificate(data: Path, settings: Settings) -> None:
    if not settings.server.insecure_http:
        certificate.load(data / settings.server.tls_certificate, data / settings.server.tls_key)


def keep_memory_private() -> None:
    """No core files, and nobody of the same user may read this process's memory; workers inherit both (P-MEM-1)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        _LOG.warning("memory stays readable to debuggers", extra={"members": {"errno": ctypes.get_errno()}})


def _settle_memory() -> None:
    """What is here now stays: the collector need not look at it again, which would copy all of it in a forked process.
    What starting took and left goes back to the system.
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def _memory_folder() -> str | None:
    """Where short-lived files are kept in memory; None: where the system has such files."""
    return str(_MEMORY_FOLDER) if _MEMORY_FOLDER.is_dir() else None


def _forget_gauges(_: Arbiter, worker: BrokerWorker) -> None:
    """What a worker that ended was doing, and which certificate it served, is no longer so."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _logging() -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
    }
