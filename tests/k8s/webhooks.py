"""The admission webhook as a process, registered from the shipped manifests, and other webhooks beside it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.certificates import Authority, Leaf
from tests.k8s.cluster import Access
from tests.k8s.conftest import ROOT

SHIPPED = ROOT / "k8s/webhook"
START_SECONDS = 60.0  # a bound: three on a machine with nothing else to do


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class WebhookProcess:
    """`kbs k8s webhook` with a certificate of a CA of the test's own, in a process group of its own."""

    def __init__(self, folder: Path, authority: Authority, access: Access) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.authority = authority
        self._folder = folder
        self._access = access
        self._process: subprocess.Popen[bytes] | None = None
        self.put(authority.issue("127.0.0.1"))

    def put(self, leaf: Leaf) -> None:
        """Another certificate, written as a Secret's mount is: both files at once, by swapping a symbolic link."""
        held = self._folder / f"tls-{time.monotonic_ns()}"
        held.mkdir()
        (held / "tls.crt").write_bytes(leaf.certificate)
        (held / "tls.key").write_bytes(leaf.key)
        draft = self._folder / "draft"
        draft.symlink_to(held.name)
        draft.rename(self._folder / "tls")

    def start(self, *, ready: bool = True) -> None:
        """Start it and wait for its probe."""
        tls = self._folder / "tls"
        command = [sys.executable, "-m", "kbs", "k8s", "webhook", f"--listen=127.0.0.1:{self.port}",
                   f"--tls-cert={tls / 'tls.crt'}", f"--tls-key={tls / 'tls.key'}",
                   f"--kubeconfig={self._access.kubeconfig}"]  # fmt: skip
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, start_new_session=True)
        self.wait_for("/readyz" if ready else "/healthz", 200)

    def wait_for(self, path: str, status: int) -> None:
        """Until a probe answers so."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.probe(path) == status:
                    return
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"{path} does not answer {status}:\n{self.log_file.read_text()[-3000:]}")

    def probe(self, path: str) -> int:
        """The status of a GET over a new connection."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self._context(), timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def shown(self) -> bytes:
        """The certificate that a new connection gets, DER."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as raw,
            self._context().wrap_socket(raw, server_hostname="127.0.0.1") as connected,
        ):
            found = connected.getpeercert(binary_form=True)
        assert found is not None
        return found

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    @property
    def log_file(self) -> Path:
        """What it said."""
        return self._folder / "log"

    def lines(self) -> list[dict[str, Any]]:
        """The structured part of its log."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def kill(self) -> None:
        """The whole group: a worker of gunicorn goes on answering when only its master is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        """As the kubelet ends it; its exit status."""
        assert self._process is not None
        self._process.terminate()
        status = self._process.wait(30)
        self._process = None
        return status


def registrations(name: str, url: str, ca: bytes, namespaces: dict[str, str]) -> list[dict[str, Any]]:
    """The shipped registrations under another name, for namespaces with these labels, and at an address."""
    found = []
    for each in yaml.safe_load_all((SHIPPED / "configurations.yaml").read_text()):
        each["metadata"]["name"] = name
        for webhook in each["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": url + path, "caBundle": base64.b64encode(ca).decode()}
            webhook["namespaceSelector"] = {"matchLabels": namespaces}
        found.append(each)
    return found


def shipped(file: str, name: str) -> str:
    """A shipped manifest with all names that begin with kbs-webhook changed."""
    return (SHIPPED / file).read_text().replace("kbs-webhook", name)


@contextlib.contextmanager
def other_webhook(leaf: Leaf, change: Callable[[dict[str, Any]], list[dict[str, Any]]], folder: Path) -> Iterator[str]:
    """A mutating webhook of somebody else, that answers with the operations that `change` makes of a Pod; its URL."""
    (folder / "other.pem").write_bytes(leaf.certificate + leaf.key)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            patch = base64.b64encode(json.dumps(change(request["object"])).encode()).decode()
            response = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "other.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
