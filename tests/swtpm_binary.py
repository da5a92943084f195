"""Finds `swtpm` for tests that need a real TPM 2.0. Without it they are skipped and counted; with REQUIRE_SWTPM=1 they
fail."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.swtpm import Swtpm


def find_swtpm() -> Path | None:
    """KBS_SWTPM, else `swtpm` on PATH."""
    for candidate in (os.environ.get("KBS_SWTPM"), shutil.which("swtpm")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def swtpm() -> Path:
    """The `swtpm` program."""
    program = find_swtpm()
    if program is None:
        if os.environ.get("REQUIRE_SWTPM") == "1":
            pytest.fail("REQUIRE_SWTPM=1, and there is no swtpm (KBS_SWTPM, PATH)")
        pytest.skip("needs swtpm")
    return program


@pytest.fixture
def new_tpm(swtpm: Path) -> Iterator[Callable[[], Swtpm]]:
    """Starts a fresh TPM on every call; all end with the test."""
    with ExitStack() as stack:

        def start() -> Swtpm:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tpm-")))
            return stack.enter_context(Swtpm(swtpm, folder))

        yield start


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of swtpm."""
    missed = [report for report in terminalreporter.stats.get("skipped", []) if "needs swtpm" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(f"{len(missed)} TPM tests did not run: no swtpm here; `make swtpm` gets it")
