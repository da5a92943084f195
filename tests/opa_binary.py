"""Finds `opa` for tests that need it. Without it they are skipped and counted; with REQUIRE_OPA=1 they fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def find_opa() -> Path | None:
    """KBS_OPA, else `opa` on PATH, else where `go install` puts it."""
    for candidate in (os.environ.get("KBS_OPA"), shutil.which("opa"), str(Path.home() / "go/bin/opa")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def opa() -> Path:
    """The `opa` program."""
    program = find_opa()
    if program is None:
        if os.environ.get("REQUIRE_OPA") == "1":
            pytest.fail("REQUIRE_OPA=1, and there is no opa (KBS_OPA, PATH, ~/go/bin)")
        pytest.skip("needs opa")
    return program


@pytest.fixture(scope="session")
def opa_socket(opa: Path) -> Iterator[Path]:
    """The Unix socket of an OPA server that runs for the session."""
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        path = Path(folder) / "s"
        server = start_opa(opa, path)
        yield path
        server.kill()
        server.wait()


def start_opa(opa: Path, path: Path, *, also: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server on a Unix socket and wait until it listens. also: an address of the form host:port beside it."""
    addresses = ["--addr", f"unix://{path}", *(("--addr", also) if also else ())]
    server = subprocess.Popen(
        [opa, "run", "--server", *addresses, "--unix-socket-perm", "600", "--log-level", "error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return server
        time.sleep(0.02)
    server.kill()
    pytest.fail("the OPA server does not start")


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of opa."""
    missed = [report for report in terminalreporter.stats.get("skipped", []) if "needs opa" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(f"{len(missed)} OPA tests did not run: no opa here; `make opa` gets it")
