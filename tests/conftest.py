"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bao_binary, opa_binary, postgres_binary, swtpm_binary
from tests.bao_binary import bao
from tests.crosscheck import programs
from tests.opa_binary import opa, opa_socket
from tests.postgres_binary import new_database, postgres, schema
from tests.swtpm_binary import new_tpm, swtpm

__all__ = ["bao", "new_database", "new_tpm", "opa", "opa_socket", "postgres", "schema", "swtpm", "vectors"]

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture
def vectors() -> Path:
    """The folder of test vectors; each set in it says where it came from in SOURCE.md."""
    return VECTORS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run for want of a program."""
    opa_binary.summarize(terminalreporter)
    swtpm_binary.summarize(terminalreporter)
    bao_binary.summarize(terminalreporter)
    postgres_binary.summarize(terminalreporter)
    programs.summarize(terminalreporter)
