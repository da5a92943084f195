"""One container that runs in namespaces of its own: the test's end of `tests.k8s.sandbox`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from tests.k8s.sandbox import REQUEST_BYTES, Spec

ROOT: Final = Path(__file__).parents[2]


class Container:
    """One container that runs, and its network."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.log = folder / "log"
        specification = folder / "spec.json"
        specification.write_text(json.dumps(spec))
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        as_whom = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        apart = ["unshare", *as_whom, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with theirs, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*apart, sys.executable, "-m", "tests.k8s.sandbox", str(specification), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _ask(self, *request: object) -> tuple[Any, socket.socket | None]:
        with self._turn:
            try:
                self._control.send(json.dumps(request).encode())
                reply, descriptors, _, _ = socket.recv_fds(self._control, REQUEST_BYTES, 1)
            except OSError as err:
                raise OSError(f"the container is gone: {err}") from err
        if not reply:
            raise OSError("the container is gone")
        answer = json.loads(reply)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["status"], socket.socket(fileno=descriptors[0]) if descriptors else None

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """A connection to a port that the container listens on. Raises OSError."""
        opened = self._ask("connect", host, port)[1]
        assert opened is not None
        return opened

    def listen(self, host: str, port: int) -> socket.socket:
        """A socket that listens in the container's network. Raises OSError."""
        opened = self._ask("listen", host, port)[1]
        assert opened is not None
        return opened

    def status(self) -> int | None:
        """The exit status of its command, None while that runs. Raises OSError when the container could not be made."""
        status = self._ask("status")[0]
        assert status is None or isinstance(status, int)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        self._ask("signal", number)

    def execute(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a second command beside the first, as `kubectl exec`. Raises OSError, also when it takes too long."""
        status, said, complained = self._ask("execute", command, seconds)[0]
        return subprocess.CompletedProcess(list(command), status, said, complained)

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def stop(self, grace: float) -> int | None:
        """SIGTERM, and SIGKILL after `grace` seconds; returns the exit status, None where it had to be killed."""
        status: int | None = None
        with contextlib.suppress(OSError):
            self.signal(signal.SIGTERM)
            deadline = time.monotonic() + grace
            while (status := self.status()) is None and time.monotonic() < deadline:
                time.sleep(0.05)
        self.kill()
        return status

    def kill(self) -> None:
        """End all its processes at once."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        self._control.close()
