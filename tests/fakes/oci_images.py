"""Small images made here: tar layers in any packing, one platform or several, in a layout or as blobs by digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def sha256(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@dataclass(frozen=True)
class Layer:
    """One layer. packing: "", "+gzip" or "+zstd"."""

    tar: bytes
    packing: str = "+gzip"
    media_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def blob(self) -> bytes:
        if self.packing == "+gzip":
            return gzip.compress(self.tar, mtime=0)
        return zstandard.ZstdCompressor().compress(self.tar) if self.packing == "+zstd" else self.tar


@dataclass
class Blobs:
    """Blobs by digest."""

    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, raw: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keep one; its descriptor."""
        self.found[sha256(raw)] = raw
        return {"mediaType": media_type, "digest": sha256(raw), "size": len(raw), **more}

    def add_json(self, document: Any, media_type: str, **more: Any) -> dict[str, Any]:
        return self.add(json.dumps(document).encode(), media_type, **more)

    def image(self, layers: Sequence[Layer], platform: str = "linux/amd64", **more: Any) -> dict[str, Any]:
        """An image for one platform; the descriptor of its manifest. more: members of the manifest."""
        system, architecture, *variant = platform.split("/")
        named = {"architecture": architecture, "os": system, **({"variant": variant[0]} if variant else {})}
        config = {**named, "rootfs": {"type": "layers", "diff_ids": [sha256(layer.tar) for layer in layers]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add_json(config, CONFIG),
            "layers": [
                self.add(layer.blob, layer.media_type or LAYER + layer.packing, **layer.extra) for layer in layers
            ],
            **more,
        }
        return self.add_json(manifest, MANIFEST)

    def index(self, entries: Sequence[tuple[str | None, dict[str, Any]]], **more: Any) -> dict[str, Any]:
        """An index of images by platform; its descriptor."""
        listed = []
        for platform, descriptor in entries:
            parts = (platform or "").split("/")
            named = dict(zip(("os", "architecture", "variant"), parts, strict=False)) if platform else None
            listed.append(descriptor | ({"platform": named} if named else {}))
        return self.add_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}, INDEX)

    def write(self, folder: Path, root: Mapping[str, Any], tag: str | None = None) -> Path:
        """A layout with one image."""
        (folder / "blobs/sha256").mkdir(parents=True)
        for digest, raw in self.found.items():
            (folder / "blobs" / digest.replace(":", "/")).write_bytes(raw)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        entry = dict(root)
        if tag is not None:
            entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return folder


def read_layout(folder: Path) -> tuple[Any, Mapping[str, bytes]]:
    """The one entry of a layout's index, and its blobs, each of the digest in its name."""
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (folder / "blobs/sha256").iterdir()}
    assert all(sha256(raw) == digest for digest, raw in blobs.items())
    [entry] = json.loads((folder / "index.json").read_text())["manifests"]
    return entry, blobs
