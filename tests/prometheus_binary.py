"""Finds `prometheus` and `promtool` for the tests of alerts and dashboard. Without them these are skipped and counted;
with REQUIRE_PROMETHEUS=1 they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def program(name: str) -> Path:
    """`prometheus` or `promtool` on PATH."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    if os.environ.get("REQUIRE_PROMETHEUS") == "1":
        pytest.fail(f"REQUIRE_PROMETHEUS=1, and there is no {name} on PATH")
    pytest.skip(f"needs {name}")


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of it."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = [each for each in skipped if "needs prom" in str(each.longrepr)]
    if missed:
        terminalreporter.write_line(
            f"{len(missed)} monitoring tests did not run: no Prometheus; `make prometheus` gets it"
        )
