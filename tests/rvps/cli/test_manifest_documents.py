"""docs/reference-values/corim-and-swid.md, run as it stands over the vectors, at a time when they were valid."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import click.testing
import pytest

from rvps import cli
from rvps.cli import imports, verification
from rvps.cli.compute import manifests
from tests.architecture.documents import ROOT, blocks, text_of

VECTORS = ROOT / "tests/vectors/rvps"
PINNED = ROOT / "kbs/attestation/endorsements/roots/nvidia_corim_signing_root_ca.pem"
AT = datetime(2025, 6, 1, tzinfo=UTC)
RECORDS = [
    {"name": "svn", "expired": "2024-01-01T00:00:00Z", "hash-value": [{"alg": "sha384", "value": "1"}]},
    {"name": "launch_digest", "expiration": "2027-01-01T00:00:00Z", "value": ["abcde"]},
]


def _prepare(folder: Path, publishers: str) -> None:
    (folder / "vbios.xml").write_bytes(base64.b64decode((VECTORS / "swid/test-rim.b64").read_bytes()))
    shutil.copyfile(PINNED, folder / "nvidia-rim-root.pem")
    (folder / "publishers.toml").write_text(publishers)
    (folder / "reference-values.json").write_text(json.dumps(RECORDS))
    shutil.copyfile(VECTORS / "corim/unsigned-example-corim.cbor", folder / "acme.corim")


def _run(script: str) -> str:
    told = ""
    for line in script.splitlines():
        if line.startswith("rvps "):
            done = click.testing.CliRunner().invoke(cli.main, shlex.split(line)[1:])
            assert done.exit_code == 0, done.output
            told += done.stdout
        else:
            subprocess.run(["bash", "-c", line], check=True, timeout=10)
    return told


def test_the_document_goes_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (verification, imports, manifests):
        monkeypatch.setattr(module, "system_clock", lambda: AT)
    settings, *found = blocks(text_of(ROOT / "docs/reference-values/corim-and-swid.md"))
    _prepare(tmp_path, settings.text)
    assert [block.kind for block in found] == ["sh", "text"] * 4
    for script, shown in zip(found[::2], found[1::2], strict=True):
        printed = iter([line.split() for line in _run(script.text).splitlines()])
        for line in shown.text.splitlines():
            assert line.split() in printed, line  # an iterator: in this order
