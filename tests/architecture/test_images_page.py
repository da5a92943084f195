"""docs/images.md: its commands, run as they stand against a broker in this process, show what the page shows."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.documents import ROOT, Block, blocks, text_of
from tests.fakes.broker import BrokerUnderTest, Edge
from tests.fakes.oci_images import LAYER, MANIFEST, Blobs, Layer, read_layout, tar_of
from tests.kbs.cli.conftest import REFERENCES, BrokerTransport, invoke

PAGE: Final = ROOT / "docs/images.md"
_DATA: Final = "~/first-kbs"
_KEYS: Final = "org.opencontainers.image.enc.keys.provider.attestation-agent"
_VARYING: Final = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"[ \t]+"), " "),
)


def _steps() -> Iterator[tuple[str, str]]:
    found = blocks(text_of(PAGE))
    for block, after in zip(found, [*found[1:], Block("", "")], strict=True):
        if block.kind == "sh":
            assert after.kind == "text"
            yield block.text, after.text


def _plain(text: str) -> list[str]:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _run(line: str, transport: BrokerTransport, data: str) -> str:
    """One line: `kbs` here, everything else in a shell."""
    if not line.startswith("kbs "):
        return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout
    command, pipe, _ = line.partition(" 2>&1 | tail -1")
    words = [data if word == _DATA else word for word in shlex.split(command)[1:]]
    said = invoke(transport, *words).output.replace(data, _DATA)
    return said.splitlines()[-1] + "\n" if pipe else said


def _prepare(folder: Path, transport: BrokerTransport, data: str) -> None:
    """The image, the policy of the quick start, and what other tools made of the image."""
    blobs = Blobs()
    root = blobs.image([Layer(tar_of({"etc/os-release": b"ID=test\n"})), Layer(tar_of({"app": b"app"}))])
    blobs.write(folder / "app", root, "v1")
    for name, value in REFERENCES.items():
        assert invoke(transport, "reference", "set", name, json.dumps(value), "--data", data).exit_code == 0
    assert invoke(transport, "policy", "set-resource", "--shipped", "sample-demo", "--data", data).exit_code == 0
    (folder / "kek").write_bytes(bytes(32))
    made = ("image", "encrypt", "oci:app", "oci:made", "--kek", "default/image-kek/app", "--kek-file", "kek")
    assert invoke(None, *made).exit_code == 0
    (folder / "kek").unlink()
    entry, found = read_layout(folder / "made")
    for name in ("two-slashes", "zstd-enc"):
        manifest = json.loads(found[entry["digest"]])
        for layer in manifest["layers"]:
            if name == "zstd-enc":
                layer["mediaType"] = f"{LAYER}+zstd+encrypted"
                continue
            packet = base64.b64decode(layer["annotations"][_KEYS]).replace(b"kbs:///", b"kbs://")
            layer["annotations"][_KEYS] = base64.b64encode(packet).decode()
        again = Blobs(dict(found))
        again.write(folder / name, again.add_json(manifest, MANIFEST))


def test_the_page_shows_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    try:
        monkeypatch.chdir(tmp_path)
        transport, data = BrokerTransport(broker), str(broker.data)
        _prepare(tmp_path, transport, data)
        for script, shown in _steps():
            said = "".join(_run(line, transport, data) for line in script.splitlines())
            assert _plain(said) == _plain(shown), said
    finally:
        broker.close()
