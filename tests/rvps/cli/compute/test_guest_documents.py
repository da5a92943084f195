"""The worked examples of the documents about PCRs, init data, Kata, SE and learning, run as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from rvps import cli
from tests.architecture.documents import ROOT, blocks, text_of
from tests.rvps.cli.compute import guest_artifacts

EXAMPLES = {"compute-pcr": 4, "compute-init-data": 2, "compute-kata": 1, "compute-se": 1, "learn": 1}


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("name", "examples"), EXAMPLES.items())
def test_the_examples_print_what_the_document_shows(
    name: str, examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest_artifacts.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = blocks(text_of(ROOT / f"docs/reference-values/{name}.md"))
    assert [block.kind for block in found] == ["sh", "text"] * examples
    for script, shown in zip(found[::2], found[1::2], strict=True):
        program, *arguments = shlex.split(script.text)
        assert program == "rvps"
        told = CliRunner().invoke(cli.main, arguments)
        assert told.exit_code == 0
        assert words(told.output) == words(shown.text)
