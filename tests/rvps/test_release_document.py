"""docs/reference-values/release.md, run as it stands: from a build to guests that are affirmed, and back."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.fakes.quick_commands import QuickCommands

_HOME = "/root"  # of whoever wrote the transcript
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_DEADLINE = 120  # seconds for one block, on a busy machine
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b"), "DIGEST"),
    (_ID, "ID"),
    (re.compile(r"[ \t]+"), " "),
)


def _steps() -> list[tuple[str, str]]:
    """Each script with the output that follows it."""
    found = blocks(text_of(ROOT / "docs/reference-values/release.md"))
    pairs = zip(found, [*found[1:], Block("", "")], strict=True)
    return [(block.text, after.text if after.kind == "text" else "") for block, after in pairs if block.kind == "sh"]


def _plain(text: str) -> list[str]:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[QuickCommands]:
    commands = QuickCommands(tmp_path)
    yield commands
    commands.stop()


@pytest.mark.server
@pytest.mark.enable_socket
def test_the_path_of_a_release_goes_as_the_document_says(tmp_path: Path, quick: QuickCommands) -> None:
    steps = _steps()
    assert len(steps) == 15
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KBS_", "RVPS_", "PROMETHEUS_"))}
    environment = kept | {
        "HOME": str(home),
        "PATH": f"{quick.folder}{os.pathsep}{os.environ['PATH']}",
        "KBS__SERVER__LISTEN": f'["127.0.0.1:{port}"]',
        "KBS__SERVER__WORKERS": "1",
    }
    ids: dict[str, str] = {}
    exports, out = "", tmp_path / "out"
    for script, shown in steps:
        script = script.replace("8080", port)
        for documented, real in ids.items():
            script = script.replace(documented, real)
        with out.open("wb") as file:
            shell = subprocess.Popen(
                ["bash", "-c", exports + script],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                shell.wait(_DEADLINE)
            finally:
                if shell.poll() is None:
                    os.killpg(shell.pid, signal.SIGKILL)
        exports += "".join(f"{line}\n" for line in script.splitlines() if line.startswith("export "))
        told = out.read_text("utf-8").replace(port, "8080")
        assert _plain(told) == _plain(shown.replace(_HOME, str(home))), (home / "kbs/log").read_text()
        ids.update(zip(_ID.findall(shown), _ID.findall(told), strict=True))
