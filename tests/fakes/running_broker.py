"""A real broker: `kbs serve` with two workers over TLS, on a port of loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kbs.client.guest import GuestClient

ROOT = Path(__file__).parents[2]


class RunningBroker:
    """`kbs serve` as a child process. program: what else runs `kbs`."""

    def __init__(
        self,
        data: Path,
        *,
        workers: int = 2,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.data = data
        self.host = "127.0.0.1"
        self.port = free_port()
        self._kbs("init", str(data), "--insecure-sample")
        environment = {**os.environ, "KBS__ENDORSEMENTS__NETWORK": "false", **(settings or {})}
        self.log = data.parent / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(program or KBS),
                    *("serve", "--data", str(data), "--workers", str(workers), "--listen", f"{self.host}:{self.port}"),
                ],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()

    def _kbs(self, *arguments: str) -> None:
        subprocess.run([*KBS, *arguments], cwd=ROOT, check=True, capture_output=True)

    def _wait_until_it_answers(self) -> None:
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                with self.connect() as connection:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
                    if connection.recv(20).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise AssertionError(self.log.read_text())

    @property
    def url(self) -> str:
        """Base URL."""
        return f"https://localhost:{self.port}"

    @property
    def ca(self) -> Path:
        """The CA that signed the server's certificate."""
        return self.data / "tls/ca.pem"

    @property
    def admin_token(self) -> str:
        """The one that `kbs init` made."""
        return (self.data / "admin-token").read_text().strip()

    def connect_plain(self, timeout: float = 10) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection((self.host, self.port), timeout)

    def connect(self, timeout: float = 10) -> ssl.SSLSocket:
        """A TLS connection."""
        context = ssl.create_default_context(cafile=str(self.ca))
        return context.wrap_socket(self.connect_plain(timeout), server_hostname="localhost")

    def exchange(self, octets: bytes) -> tuple[int, bytes, bytes]:
        """Send these octets on a connection of their own: status, head and body of the answer."""
        with self.connect() as connection:
            connection.sendall(octets)
            return read_answer(connection)

    def guest(self) -> GuestClient:
        """A guest with the software TEE."""
        return GuestClient(self.url, ca_file=self.ca)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(each) for each in children.split()]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


KBS = (sys.executable, "-m", "kbs")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, head and body; status 0 when the peer closed without one."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65_536)
        if not more:
            return 0, b"", received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        more = connection.recv(65_536)
        if not more:
            break
        body += more
    return int(head.split()[1]), head, body


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request; `Content-Length` when it has a body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


FIRST = json.dumps({"version": "0.4.0", "tee": "sample", "extra-params": ""}).encode()
