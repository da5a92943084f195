"""The worked examples of the documents, run as they stand over artifacts made here."""

from __future__ import annotations

import gzip
import shlex
from pathlib import Path

import click.testing
import pytest

from rvps import cli, value_set
from tests.architecture.documents import ROOT, blocks, text_of
from tests.rvps.compute.images import kernel, sev_firmware, tdx_firmware


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


DOCUMENTS = {"compute-snp": 1, "compute-tdx": 2}


@pytest.mark.parametrize(("name", "examples"), DOCUMENTS.items())
def test_the_examples_print_what_the_document_shows(
    name: str, examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OVMF.amdsev.fd").write_bytes(sev_firmware())
    (tmp_path / "OVMF.fd").write_bytes(tdx_firmware())
    (tmp_path / "vmlinuz").write_bytes(kernel())
    (tmp_path / "initrd.img").write_bytes(b"initrd")
    log = ROOT / "tests/vectors/eventlog/live_b0c06f.ccel.gz"
    (tmp_path / "ccel").write_bytes(gzip.decompress(log.read_bytes()))
    found = blocks(text_of(ROOT / f"docs/reference-values/{name}.md"))
    assert [block.kind for block in found] == ["sh", "text"] * examples
    for script, shown in zip(found[::2], found[1::2], strict=True):
        program, *words = shlex.split(script.text)
        assert program == "rvps"
        told = click.testing.CliRunner().invoke(cli.main, words)
        assert told.exit_code == 0
        assert _words(told.output) == _words(shown.text)
    for document in tmp_path.glob("*-values.json"):
        assert value_set.read(document.read_bytes().strip()).artifacts
