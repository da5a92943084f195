"""docs/reference-values/service.md, run as it stands against a real service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, blocks, text_of

_SECONDS = 60


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.mark.server
@pytest.mark.enable_socket
def test_the_first_commands_say_what_the_document_says(tmp_path: Path) -> None:
    script, shown = blocks(text_of(ROOT / "docs/reference-values/service.md"))[:2]
    assert (script.kind, shown.kind) == ("sh", "text")
    text = script.text
    for documented, real in zip(("50003", "50004"), _free_ports(2), strict=True):
        assert documented in text
        text = text.replace(documented, str(real))
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    out = tmp_path / "out"
    with out.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-ec", text], cwd=tmp_path, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            assert shell.wait(_SECONDS) == 0, out.read_text()
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    assert out.read_text() == shown.text
