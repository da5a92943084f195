"""Finds a container registry for tests that need a real one. Without it they are skipped and counted;
REQUIRE_REGISTRY=1: they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def find_registry() -> Path | None:
    """KBS_REGISTRY, or `docker-registry` on PATH: distribution/distribution 2 or 3."""
    for candidate in (os.environ.get("KBS_REGISTRY"), shutil.which("docker-registry")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def registry_program() -> Path:
    """The program."""
    program = find_registry()
    if program is None:
        if os.environ.get("REQUIRE_REGISTRY") == "1":
            pytest.fail("REQUIRE_REGISTRY=1, and there is no docker-registry (KBS_REGISTRY, PATH)")
        pytest.skip("needs docker-registry")
    return program


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of a registry."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = [report for report in skipped if "needs docker-registry" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(
            f"{len(missed)} registry tests did not run: no docker-registry here; `make registry` gets it"
        )
