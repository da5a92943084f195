"""A real `rvps serve` on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SECONDS = 30.0
_COMMAND = (sys.executable, "-m", "tests.fakes.running_provider", "serve")
_AT = re.compile(r"^(gRPC|REST) on \S+:(\d+)$", re.MULTILINE)


class RunningProvider:
    """Started when made; on ports of its own unless told which."""

    def __init__(self, data: Path, *options: str, listen: str = "127.0.0.1:0", rest: str = "127.0.0.1:0") -> None:
        self.data = data
        self._log = data.with_name(data.name + ".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_COMMAND, "--data", str(data), "--listen", listen, "--rest-listen", rest, *options],
                cwd=ROOT,
                stderr=log,
            )
        found = self._wait()
        self.grpc = f"127.0.0.1:{found['gRPC']}"
        self.rest = f"127.0.0.1:{found['REST']}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def token(self, name: str = "admin-token") -> str:
        return (self.data / name).read_text().strip()

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_SECONDS)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(_SECONDS)

    def _wait(self) -> dict[str, str]:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            found = dict(_AT.findall(self.log))
            if len(found) == 2:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.process.kill()
        raise AssertionError(f"the provider did not start: {self.log}")


if __name__ == "__main__":
    from rvps.cli import main

    os.umask(0o022)
    main()
