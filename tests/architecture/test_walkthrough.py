"""The policy author's path, run as it stands against a real broker: what authors see is what the document says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.architecture.test_quick_start import environment
from tests.opa_binary import opa

__all__ = ["environment", "opa"]

_HOME = "/root"  # of whoever wrote the transcript
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_DEADLINE = 60  # seconds for one block
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b"), "DIGEST"),
    (_ID, "ID"),
    (re.compile(r"[ \t]+"), " "),
)


def _steps() -> list[tuple[str, str]]:
    """Each script with the output that follows it."""
    found = blocks(text_of(ROOT / "docs/policies/walkthrough.md"))
    pairs = zip(found, [*found[1:], Block("", "")], strict=True)
    return [(block.text, after.text if after.kind == "text" else "") for block, after in pairs if block.kind == "sh"]


def _plain(text: str) -> list[str]:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.server
@pytest.mark.enable_socket
def test_the_authors_path_goes_as_the_document_says(tmp_path: Path, environment: dict[str, str], opa: Path) -> None:
    steps = _steps()
    assert len(steps) == 11
    environment = environment | {"PATH": f"{environment['PATH']}{os.pathsep}{opa.parent}"}
    ids: dict[str, str] = {}
    groups: list[int] = []
    try:
        for script, shown in steps:
            for documented, real in ids.items():
                script = script.replace(documented, real)
            out = tmp_path / "out"
            with out.open("wb") as file:
                shell = subprocess.Popen(
                    ["bash", "-c", script],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # with the broker that it leaves behind
                )
                groups.append(shell.pid)
                shell.wait(_DEADLINE)
            told = out.read_text("utf-8")
            assert _plain(told) == _plain(shown.replace(_HOME, str(tmp_path))), (tmp_path / "kbs/log").read_text()
            ids.update(zip(_ID.findall(shown), _ID.findall(told), strict=True))
    finally:
        for group in groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue
