"""docs/reference-values/signing.md: its commands, run in order, say what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from rvps import value_set
from rvps.cli import main
from rvps.publishers.file import read
from rvps.value_set import Artifact, ValueSet
from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.fakes.sigstore import Sigstore

BLOCKS = blocks(text_of(ROOT / "docs/reference-values/signing.md"))
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b[0-9a-f]{96}\b"), "DIGEST96"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"[ \t]+"), " "),
)


def plain(text: str) -> list[str]:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def after(block: Block) -> Block:
    return BLOCKS[BLOCKS.index(block) + 1]


def test_the_commands_say_what_the_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    made = ValueSet(
        "kata-guest", {"snp_launch_measurement": ["ab" * 48]}, (Artifact("OVMF.fd", {"sha256": "cd" * 32}),), "snp"
    )
    Path("guest.json").write_bytes(value_set.write(made))
    (settings,) = (block.text for block in BLOCKS if block.kind == "toml")
    Path("publishers.toml").write_text(settings)
    scripts = [block for block in BLOCKS if block.kind == "sh"]
    assert len(scripts) == 3
    for script in scripts:
        told = ""
        for line in script.text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "rvps"
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.output
            told += result.stdout
        assert plain(told) == plain(after(script).text)


def test_the_settings_for_keyless_publishers_are_read(tmp_path: Path) -> None:
    (settings,) = (block.text for block in BLOCKS if block.text.startswith("[publishers.coco]"))
    (tmp_path / "publishers.toml").write_text(settings)
    (tmp_path / "trusted_root.json").write_bytes(Sigstore().trusted_root())
    (publisher,) = read(tmp_path / "publishers.toml")
    assert publisher.provenance is not None
    assert publisher.provenance.series == "coco"
    assert publisher.trust.sigstore is not None
    assert publisher.trust.sigstore.runner_environment == "github-hosted"
