"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import bao_binary, opa_binary, postgres_binary, prometheus_binary, registry_binary, softhsm, swtpm_binary
from tests.bao_binary import bao
from tests.crosscheck import programs
from tests.opa_binary import opa, opa_socket
from tests.postgres_binary import new_database, postgres, schema
from tests.registry_binary import registry_program
from tests.softhsm import token
from tests.startup import sitecustomize
from tests.swtpm_binary import new_tpm, swtpm

__all__ = [
    "bao",
    "new_database",
    "new_tpm",
    "opa",
    "opa_socket",
    "postgres",
    "registry_program",
    "schema",
    "swtpm",
    "token",
    "vectors",
]

VECTORS = Path(__file__).parent / "vectors"
STARTUP = Path(__file__).parent / "startup"


def pytest_configure(config: pytest.Config) -> None:
    """Compile each policy once, in whichever process it is first needed (tests/startup)."""
    if sitecustomize.VARIABLE in os.environ:
        return  # a worker of pytest-xdist, started by a process that did this
    folder = Path(tempfile.mkdtemp(prefix="kbs-tests-wasm-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    configuration = folder / "cache.toml"
    configuration.write_text(f"[cache]\ndirectory = '{folder / 'modules'}'\n")
    sitecustomize.begin(str(configuration))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(STARTUP), os.environ.get("PYTHONPATH"))))


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
    prometheus_binary.summarize(terminalreporter)
    registry_binary.summarize(terminalreporter)
    softhsm.summarize(terminalreporter)
    programs.summarize(terminalreporter)
