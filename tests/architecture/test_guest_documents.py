"""The documents on what image builders and Pods get, run as they stand against one real broker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.architecture.test_quick_start import environment
from tests.fakes.quick_commands import QuickCommands

__all__ = ["environment"]

DOCUMENTS = ("sealed-secrets", "key-provider", "troubleshooting")
_HOME = "/root"  # of whoever wrote the transcript
_DEADLINE = 60  # seconds for one block
_SECTION = "A first secret"


def steps(text: str) -> list[tuple[str, str]]:
    """Each script with the output that follows it."""
    found = blocks(text)
    pairs = zip(found, [*found[1:], Block("", "")], strict=True)
    return [(block.text, after.text if after.kind == "text" else "") for block, after in pairs if block.kind == "sh"]


def plain(text: str) -> list[str]:
    return [re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines() if line.strip()]


class Shell:
    """Runs scripts one after the other; what they leave running ends with it."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._groups: list[int] = []

    def run(self, script: str) -> str:
        out = self._home / "out"
        with out.open("wb") as file:
            shell = subprocess.Popen(
                ["bash", "-c", script],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(shell.pid)
            shell.wait(_DEADLINE)
        return out.read_text("utf-8")

    def end(self) -> None:
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """In a home with the broker of the quick start."""
    quick = QuickCommands(tmp_path)
    shell = Shell(tmp_path, environment | {"PATH": f"{quick.folder}{os.pathsep}{environment['PATH']}"})
    section = text_of(ROOT / "README.md").split(f"\n## {_SECTION}\n")[1].split("\n## ")[0]
    try:
        for script, _ in steps(section)[:2]:
            shell.run("\n".join(line for line in script.splitlines() if not line.startswith("export PATH=")))
        yield shell
    finally:
        shell.end()
        quick.stop()


@pytest.mark.server
@pytest.mark.enable_socket
def test_they_go_as_they_say(shell: Shell, tmp_path: Path) -> None:
    for name in DOCUMENTS:
        found = steps(text_of(ROOT / f"docs/{name}.md"))
        assert found
        for script, shown in found:
            assert plain(shell.run(script)) == plain(shown.replace(_HOME, str(tmp_path))), name
