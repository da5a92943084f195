"""A place to work in, and one image under a known KEK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbs.images.encrypt import Sealing, encrypt
from kbs.images.errors import ImageError
from kbs.images.locations import open_source, open_target, parse_location
from kbs.images.opening import Rewrapping, decrypt, rekey
from kbs.images.places import Advance
from kbs.images.registry_client import RegistryOptions
from kbs.images.rewrite import Copy, Outcome
from kbs.secret import Secret
from tests.fakes.oci_images import Blobs, Layer, read_layout, tar_of
from tests.fakes.registry import FakeRegistry

KEK = Secret(bytes(range(32)))
OTHER = Secret(bytes(32))
KID = "kbs:///default/image-kek/app"
SHARED = Layer(tar_of({"etc/os-release": b"ID=test\n" * 500}))


class Quiet:
    """Progress that nobody sees; it keeps the labels."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def layer(self, label: str, size: int) -> Advance:
        self.labels.append(label)
        return lambda count: None


class Workshop:
    """Runs the three operations between locations; registries are fakes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = FakeRegistry()
        self.progress = Quiet()
        self.options = RegistryOptions(transport=self.registry)

    def at(self, name: str) -> str:
        return f"oci:{self.folder / name}"

    def layout(self, name: str, *layers: Layer, tag: str | None = None, **more: Any) -> str:
        """A layout with an image for one platform."""
        blobs = Blobs()
        blobs.write(self.folder / name, blobs.image(layers, **more), tag)
        return self.at(name)

    def encrypt(self, source: str, target: str, **changes: Any) -> Outcome:
        return self._run(source, target, lambda copy: encrypt(copy, Sealing(**{"kek": KEK, "kid": KID, **changes})))

    def decrypt(self, source: str, target: str, kek: Secret = KEK, platforms: tuple[str, ...] = ()) -> Outcome:
        return self._run(source, target, lambda copy: decrypt(copy, lambda packet: kek, platforms))

    def rekey(self, source: str, target: str, kek: Secret = OTHER, kid: str = KID) -> Outcome:
        return self._run(source, target, lambda copy: rekey(copy, Rewrapping(lambda packet: KEK, kek, kid)))

    def refused(self, source: str, target: str = "out", **changes: Any) -> str:
        """Why an encryption was refused, after which nothing is left of its target."""
        with pytest.raises(ImageError) as refused:
            self.encrypt(source, self.at(target), **changes)
        self.nothing_at(target)
        return str(refused.value)

    def nothing_at(self, name: str) -> None:
        assert not [path.name for path in self.folder.iterdir() if name in path.name]

    def _run(self, source: str, target: str, what: Any) -> Outcome:
        opened = open_source(parse_location(source), self.options)
        try:
            with open_target(parse_location(target), self.options) as written:
                document, outcome = what(Copy(opened, written, self.progress))
                written.commit(document.raw, document.descriptor)
        finally:
            opened.close()
        assert isinstance(outcome, Outcome)
        return outcome


@pytest.fixture
def work(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def app(work: Workshop) -> str:
    """A layout: three layers, in gzip, tar and zstd."""
    return work.layout("app", SHARED, Layer(tar_of({"b": b"2"}), ""), Layer(tar_of({"c": b"3" * 9000}), "+zstd"))


def manifest_of(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest of a layout with one image, and all blobs."""
    entry, blobs = read_layout(folder)
    return json.loads(blobs[entry["digest"]]), dict(blobs)
