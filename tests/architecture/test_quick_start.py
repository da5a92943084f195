"""What the README has people type, run as it stands against a real broker: what they see is what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of

_HOME = "/root"  # of whoever wrote the transcript
_DECISION = re.compile(r"\b[0-9a-f]{32}\b")
_DEADLINE = 60  # seconds for one block
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b|\bsha256:[0-9a-f]{16}\b"), "DIGEST"),
    (_DECISION, "ID"),
    (re.compile(r"\d+ records, \d+ of them"), "N records, N of them"),
    (re.compile(r"[ \t]+"), " "),
)


def _steps(heading: str) -> list[tuple[str, str]]:
    """Each script with the output that follows it; a script without one says nothing worth showing."""
    section = text_of(ROOT / "README.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = blocks(section)
    pairs = zip(found, [*found[1:], Block("", "")], strict=True)
    return [(block.text, after.text if after.kind == "text" else "") for block, after in pairs if block.kind == "sh"]


def _plain(text: str) -> list[str]:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KBS_", "PROMETHEUS_"))}
    return kept | {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "KBS__SERVER__LISTEN": f'["127.0.0.1:{port}"]',
        "KBS__SERVER__WORKERS": "1",
    }


@pytest.mark.server
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("heading", "blocks_of_commands", "folder"),
    [("A first secret", 4, "first-kbs"), ("Try any TEE without hardware", 2, "any-tee")],
)
def test_it_goes_as_the_readme_says(
    heading: str, blocks_of_commands: int, folder: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    steps = _steps(heading)
    assert len(steps) == blocks_of_commands
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
            assert _plain(told) == _plain(shown.replace(_HOME, str(tmp_path))), (tmp_path / folder / "log").read_text()
            ids.update(zip(_DECISION.findall(shown), _DECISION.findall(told), strict=True))
    finally:
        for group in groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue
