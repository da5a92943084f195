"""docs/guest-serve.md and docs/old-guests.md, run as they stand against a real broker: people see what they say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.architecture.test_quick_start import environment

__all__ = ["environment"]

_DEADLINE = 90  # seconds for one block
_DECISION = re.compile(r"\b[0-9a-f]{32}\b")


def _steps(page: str) -> list[tuple[str, str]]:
    found = blocks(text_of(ROOT / "docs" / page))
    pairs = zip(found, [*found[1:], Block("", "")], strict=True)
    return [(block.text, after.text if after.kind == "text" else "") for block, after in pairs if block.kind == "sh"]


@pytest.mark.server
@pytest.mark.enable_socket
def test_it_goes_as_the_pages_say(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    groups: list[int] = []
    steps = [*_steps("guest-serve.md"), *_steps("old-guests.md")]
    assert [bool(shown) for _, shown in steps] == [True, True, True]
    try:
        for script, shown in steps:
            script = script.replace("127.0.0.1:8006", f"127.0.0.1:{port}")
            script = script.replace("guest serve ", f"guest serve --listen 127.0.0.1:{port} ")
            out = tmp_path / "out"
            with out.open("wb") as file:
                shell = subprocess.Popen(
                    ["bash", "-c", script],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # with the servers that it leaves behind
                )
                groups.append(shell.pid)
                shell.wait(_DEADLINE)
            told = out.read_text("utf-8")
            assert _DECISION.sub("ID", told) == _DECISION.sub("ID", shown)
        guest = (tmp_path / "laptop-kbs/guest").read_text()
        assert re.fullmatch(rf"http://127\.0\.0\.1:{port}  sample, all; software: .*\n", guest)
    finally:
        for group in groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue
