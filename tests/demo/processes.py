"""Real processes: the `kbs` command line, and a broker under gunicorn with TLS on a free port."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.demo.terminal import DemoFailed, Terminal

DATA: Final = "broker"
_START: Final = 40.0  # seconds a loaded machine may need until the broker answers
_COMMAND: Final = 60.0  # seconds
_LOG: Final = "broker.log"


class Shell:
    """Runs `kbs` in one directory, and shows what it runs. `port`: where this run's broker listens."""

    def __init__(self, directory: Path, terminal: Terminal) -> None:
        self.directory = directory
        self.terminal = terminal
        self.port = _free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        listen = {"KBS__SERVER__LISTEN": f'["127.0.0.1:{self.port}"]'}
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("KBS__", "PROMETHEUS_"))
        } | listen

    def kbs(self, *words: str, stdin: str | None = None, code: int = 0, quiet: bool = False) -> str:
        """Run a command that should end with `code`; what it wrote, errors last.

        quiet: show the command and not what it wrote.
        """
        self.terminal.command(words, stdin)
        done = self._run(words, stdin)
        if not quiet or done.returncode != code:
            self.terminal.output(done.stdout + done.stderr)
        if done.returncode != code:
            raise DemoFailed(f"exit status {done.returncode} in place of {code}")
        return done.stdout + done.stderr

    def ask(self, *words: str, code: int = 0) -> Any:
        """Run a command with `--json`, unseen; its document. For checks of what was shown before."""
        done = self._run((*words, "--json"), None)
        if done.returncode != code:
            raise DemoFailed(f"kbs {' '.join(words)}: exit status {done.returncode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def _run(self, words: tuple[str, ...], stdin: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kbs", *words],
            cwd=self.directory,
            env=self._environment,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            timeout=_COMMAND,
            check=False,
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A broker on the data directory, for as long as the block runs."""
        words = ("serve", "--data", DATA)
        self.terminal.command(words, after=" &")
        with (self.directory / _LOG).open("wb") as log:
            broker = subprocess.Popen(
                [sys.executable, "-m", "kbs", *words],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait(broker)
            yield
        except DemoFailed:
            self.terminal.output((self.directory / _LOG).read_text("utf-8", "replace")[-2000:])
            raise
        finally:
            broker.terminate()
            try:
                broker.wait(30)
            except subprocess.TimeoutExpired:
                broker.kill()
                broker.wait()

    def _wait(self, broker: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START
        trust = ssl.create_default_context(cafile=str(self.directory / DATA / "tls/ca.pem"))
        with httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=5) as client:
            while time.monotonic() < until:
                if broker.poll() is not None:
                    raise DemoFailed(f"the broker ended with status {broker.returncode}")
                try:
                    if client.get("/healthz").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.1)
        raise DemoFailed(f"no answer from the broker within {_START:.0f} seconds")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
