"""Carries bytes between Pods, Services, the API server and tests: what a network plug-in and kube-proxy do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CHUNK: Final = 65536
_HEAD_BYTES: Final = 8192

Connect = Callable[[], socket.socket]
ConnectTo = Callable[[str, int], socket.socket]


class Relay:
    """Hands every connection that arrives at a listening socket to one that `connect` opens."""

    def __init__(self, listener: socket.socket, connect: Connect) -> None:
        self._listener = listener
        self._connect = connect
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nothing more; what is open goes on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                arrived, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(arrived,), daemon=True).start()

    def _carry(self, arrived: socket.socket) -> None:
        try:
            opened = self._connect()
        except OSError:
            arrived.close()  # as nothing listened
            return
        join(arrived, opened)


class EgressProxy:
    """How the API server reaches Services: HTTP CONNECT on a Unix socket, which its egress selector is told of."""

    def __init__(self, path: Path, connect: ConnectTo) -> None:
        self._connect = connect
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(256)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """From now on no Service can be reached."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                arrived, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(arrived,), daemon=True).start()

    def _carry(self, arrived: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
            piece = arrived.recv(_CHUNK)
            if not piece:
                arrived.close()
                return
            head += piece
        host, _, port = head.split(b" ", 2)[1].decode().rpartition(":")
        try:
            opened = self._connect(host.strip("[]"), int(port))
        except (OSError, LookupError) as err:
            reason = str(err).splitlines()[0] if str(err) else type(err).__name__
            arrived.sendall(f"HTTP/1.1 502 {reason}\r\nContent-Length: 0\r\n\r\n".encode())
            arrived.close()
            return
        arrived.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        join(arrived, opened)


def join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both ends are closed; returns then."""
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()
    one.close()
    other.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def egress_configuration(path: Path) -> str:
    """For the API server's --egress-selector-config-file: calls of Services go to that Unix socket."""
    return f"""apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
  - name: cluster
    connection:
      proxyProtocol: HTTPConnect
      transport: {{uds: {{udsName: "{path}"}}}}
"""
