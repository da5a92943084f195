"""What does not work, for probes, metrics and the log; each trouble is logged when it begins and when it ends."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

_log = logging.getLogger(__name__)

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Troubles by what has them, and counters. Safe from several threads."""

    def __init__(self, version: str) -> None:
        self._lock = threading.Lock()
        self._troubles: dict[str, str] = {}
        self.registry = CollectorRegistry()
        Gauge("kbs_controller_build_info", "Version", ["version"], registry=self.registry).labels(version).set(1)
        self.leader = Gauge("kbs_controller_leader", "Whether this process acts", registry=self.registry)
        self.waiting = Gauge("kbs_controller_queue_length", "Objects that wait for a look", registry=self.registry)
        self.ready = Gauge(
            "kbs_controller_objects", "Objects by what their Ready says", ["kind", "ready"], registry=self.registry
        )
        self.looks = Counter(
            "kbs_controller_reconciliations", "Looks at objects", ["kind", "result"], registry=self.registry
        )
        self._ill = Gauge("kbs_controller_troubles", "What does not work now", registry=self.registry)

    def ill(self, what: str, text: str) -> None:
        """Something does not work."""
        with self._lock:
            before = self._troubles.get(what)
            self._troubles[what] = text
            self._ill.set(len(self._troubles))
        if before != text:
            _log.warning("trouble", extra={"members": {"what": what, "text": text}})

    def well(self, what: str) -> None:
        """It works."""
        with self._lock:
            before = self._troubles.pop(what, None)
            self._ill.set(len(self._troubles))
        if before is not None:
            _log.info("works again", extra={"members": {"what": what}})

    def troubles(self) -> dict[str, str]:
        """What does not work now."""
        with self._lock:
            return dict(sorted(self._troubles.items()))


class HealthServer:
    """`/healthz` (the loops run), `/readyz` (the caches are filled; lists troubles) and `/metrics`, plain HTTP.

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, address: tuple[str, int], health: Health, alive: Callable[[], bool], ready: Callable[[], bool]):
        class Handler(BaseHTTPRequestHandler):
            """Answers GET."""

            protocol_version = "HTTP/1.1"
            timeout = 5

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(HTTPStatus.OK, _TEXT, generate_latest(health.registry))
                elif path in ("/healthz", "/readyz"):
                    good = alive() if path == "/healthz" else ready()
                    body = json.dumps({"ok": good, "troubles": health.troubles()}).encode()
                    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                    self._answer(status, "application/json", body)
                else:
                    self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"")

            def _answer(self, status: HTTPStatus, content: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Probes come every few seconds: not logged."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
