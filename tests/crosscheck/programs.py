"""Programs around libraries of other languages: `make crosscheck` builds them, without Go they do not run.

One process answers all questions of a test: a JSON object per line in, a verdict per line out.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crosscheck.opinions import Opinion

FOLDER: Final = "KBS_CROSSCHECK_PROGRAMS"
COUNT: Final = int(os.environ.get("KBS_CROSSCHECK", "60"))
SEED: Final = os.environ.get("KBS_CROSSCHECK_SEED", "1")


class Program:
    """One program that runs until it is closed."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, question: Mapping[str, Any]) -> Opinion:
        """Its verdict. Bytes go as base64, times as RFC 3339."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question, default=_plain).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Opinion(answer["accepted"], answer["reason"], answer["facts"])

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        assert self._process.returncode == 0


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    assert isinstance(value, datetime)
    return value.isoformat()


def start(name: str) -> Program:
    """A program by name; where none was built the test is skipped and counted."""
    folder = os.environ.get(FOLDER)
    if not folder:
        pytest.skip("needs a cross-check program")
    return Program(Path(folder) / name)


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of the programs."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = [report for report in skipped if "needs a cross-check program" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(f"{len(missed)} cross-checks did not run: `make crosscheck` builds them with Go")
