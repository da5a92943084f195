"""Walk an image, change layers, and write what follows from that: manifests and indexes, everything else as it was.

Blobs go first, then manifests, then indexes, then the name. Source: OCI image-spec 1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from kbs import strict_json
from kbs.images.errors import ImageRefused
from kbs.images.layer_kinds import is_layer
from kbs.images.model import (
    CONFIG,
    DOCKER_CONFIG,
    DOCUMENTS,
    INDEX,
    INDEXES,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Manifest,
    check_digest,
    decode_members,
    describe,
    media_type_of,
    platform_of,
    read_index,
    read_manifest,
)
from kbs.images.places import Advance, Progress, Source, Target, short
from kbs.strict_json import Json

_DEPTH: Final = 3  # indexes within indexes
_MOST_ENTRIES: Final = 1000


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Where a layer stands. what: for messages. diff_id: `sha256:…` of its tar; None where the config names none."""

    what: str
    number: int
    count: int
    diff_id: str | None


class LayerRule(Protocol):
    """What becomes of one layer. The same descriptor back means: leave it as it is."""

    def wants(self, layer: Descriptor, place: LayerPlace) -> bool:
        """Whether this layer changes. Raises for one that should and cannot."""

    def apply(self, layer: Descriptor, place: LayerPlace, copy: Copy) -> Descriptor:
        """Write the layer as it becomes, if its bytes change, and describe it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """From where to where."""

    source: Source
    target: Target
    progress: Progress

    def layer(self, descriptor: Descriptor, what: str) -> Descriptor:
        """Copy a blob as it is, unless it is there."""
        if not self.target.has_blob(descriptor):
            advance = self.progress.layer(f"copy {what}", descriptor.size)
            self.target.write_blob(counted(self.source.blob(descriptor), advance))
        return descriptor


@dataclass(slots=True)
class Outcome:
    """What was done. platforms: of images whose layers were changed; kept: what was copied unchanged, and why."""

    changed: int = 0
    layers: int = 0
    platforms: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Written:
    """A document as it goes out."""

    raw: bytes
    descriptor: Descriptor


class Rewriter:
    """One walk over one image.

    Args:
        platforms: `os/architecture[/variant]` of the images to take; the others are left out. Empty: all.
    """

    def __init__(self, copy: Copy, rule: LayerRule, platforms: Sequence[str] = ()) -> None:
        self._copy = copy
        self._rule = rule
        self._platforms = platforms
        self._done: dict[str, Written] = {}
        self.outcome = Outcome()

    def run(self) -> Written:
        """Write all that the image's name will lead to, but for the name and the document it leads to.

        Raises:
            ImageError: as sources, targets and rules do. OSError: files.
        """
        root = self._copy.source.root()
        written = self._document(root, 0)
        if written is None:
            raise ImageRefused(f"the image is not for {', '.join(self._platforms)}")
        return written

    def _document(self, descriptor: Descriptor, depth: int) -> Written | None:
        """A manifest or index; None where the platforms leave it out."""
        what = f"manifest {short(descriptor.digest)}"
        raw = self._copy.source.document(descriptor)
        members = decode_members(raw, what)
        kind = media_type_of(members, what)
        if kind != descriptor.media_type:
            raise ImageRefused(f"{what}: {kind}, where its descriptor says {descriptor.media_type}")
        if kind in INDEXES:
            return self._index(raw, descriptor, members, depth)
        return self._manifest(raw, descriptor, read_manifest(members, what))

    def _index(self, raw: bytes, own: Descriptor, members: Mapping[str, Json], depth: int) -> Written | None:
        what = f"index {short(own.digest)}"
        entries = read_index(members, what)
        if depth >= _DEPTH or len(entries) > _MOST_ENTRIES:
            raise ImageRefused(f"{what}: indexes nested more than {_DEPTH} deep, or more than {_MOST_ENTRIES} entries")
        found: list[Descriptor] = []
        for entry in entries:
            if entry.media_type not in DOCUMENTS:
                raise ImageRefused(f"{what}: an entry of media type {entry.media_type}")
            if not self._may_match(entry):
                continue
            written = self._done.get(entry.digest) or self._document(entry, depth + 1)
            if written is None:
                continue
            self._copy.target.write_document(written.raw, written.descriptor)
            self._done[entry.digest] = written
            new = written.descriptor
            same = new.digest == entry.digest
            found.append(entry if same else entry.changed(new.media_type, new.digest, new.size, entry.annotations))
        if not found and entries:
            return None
        if found == entries:
            return Written(raw, own)
        return _written({**members, "mediaType": INDEX, "manifests": [dict(each.members) for each in found]}, INDEX)

    def _manifest(self, raw: bytes, own: Descriptor, manifest: Manifest) -> Written | None:
        config_raw = self._copy.source.document(manifest.config)
        is_image = manifest.config.media_type in (CONFIG, DOCKER_CONFIG)
        config = decode_members(config_raw, f"config {short(manifest.config.digest)}") if is_image else {}
        platform = platform_of(config) or "unknown platform"
        if self._platforms and not any(_matches(platform, wanted) for wanted in self._platforms):
            return None
        layers = self._layers(manifest, config, platform)
        if not self._copy.target.has_blob(manifest.config):
            self._copy.target.write_blob([config_raw])
        if layers == list(manifest.layers):
            return Written(raw, own)
        self.outcome.platforms.append(platform)
        config_members = dict(manifest.config.members) | {"mediaType": CONFIG}
        new = {"config": config_members, "layers": [dict(each.members) for each in layers]}
        named = {"mediaType": MANIFEST} if "mediaType" in manifest.members else {}
        return _written({**manifest.members, **named, **new}, MANIFEST)

    def _layers(self, manifest: Manifest, config: Mapping[str, Json], platform: str) -> list[Descriptor]:
        if not config or not any(map(is_layer, manifest.layers)):
            self.outcome.kept.append(f"an entry that is no image ({platform})")
            return [self._copy.layer(each, f"blob {short(each.digest)}") for each in manifest.layers]
        diff_ids = _diff_ids(config, len(manifest.layers), platform)
        count = len(manifest.layers)
        places = [
            LayerPlace(f"{platform} layer {number}", number, count, diff_id) for number, diff_id in enumerate(diff_ids)
        ]
        # All are looked at before the first one is copied: a mistake shows at once, not after gigabytes.
        wanted = [self._rule.wants(*each) for each in zip(manifest.layers, places, strict=True)]
        found = []
        for layer, place, changes in zip(manifest.layers, places, wanted, strict=True):
            self.outcome.layers += 1
            if not changes:
                found.append(self._copy.layer(layer, place.what))
                continue
            found.append(self._rule.apply(layer, place, self._copy))
            self.outcome.changed += 1
        return found

    def _may_match(self, entry: Descriptor) -> bool:
        """Whether to look into an entry: its platform is right or not told here."""
        platform = entry.members.get("platform")
        told = platform_of(platform) if isinstance(platform, dict) else None
        return not self._platforms or told is None or any(_matches(told, wanted) for wanted in self._platforms)


def counted(pieces: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
    """The same pieces; `advance` is told of each."""
    for piece in pieces:
        advance(len(piece))
        yield piece


def _written(members: Mapping[str, Json], media_type: str) -> Written:
    raw = strict_json.encode(dict(members))
    if len(raw) > MAX_DOCUMENT:
        raise ImageRefused(f"the new manifest would have {len(raw)} bytes; registries take {MAX_DOCUMENT}")
    return Written(raw, describe(raw, media_type))


def _matches(platform: str, wanted: str) -> bool:
    return platform == wanted or platform.startswith(f"{wanted}/")


def _diff_ids(config: Mapping[str, Json], layers: int, platform: str) -> list[str | None]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if found is None:
        return [None] * layers
    what = f"{platform}: config's rootfs.diff_ids"
    if not isinstance(found, list) or len(found) != layers:
        raise ImageRefused(f"{what}: not as many as the manifest has layers")
    return [check_digest(each, what) for each in found]
