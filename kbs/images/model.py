"""Descriptors, manifests and indexes as they stand in an image: read strictly, every member kept.

Nothing here has been fetched or compared with a digest yet. Source: OCI image-spec 1.1 (descriptor, manifest,
image-index); guest-components 2.1 for encrypted layers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import ImageRefused
from kbs.strict_json import Json

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
MANIFESTS: Final = (MANIFEST, DOCKER_MANIFEST)
INDEXES: Final = (INDEX, DOCKER_INDEX)
DOCUMENTS: Final = (*MANIFESTS, *INDEXES)

MAX_DOCUMENT: Final = 4 << 20  # bytes of a manifest, index or config; registries take no larger manifest
_MAX_SIZE: Final = 1 << 50  # bytes of a layer
_LIMITS: Final = strict_json.Limits(size=MAX_DOCUMENT, depth=64, tokens=400_000)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says about a blob. digest: `sha256:…`. size: bytes. members: all of it, in order."""

    media_type: str
    digest: str
    size: int
    members: Mapping[str, Json]

    @classmethod
    def read(cls, value: Json, what: str) -> Self:
        """From JSON.

        Raises:
            ImageRefused: a member missing or of another type, another digest than sha256, a negative size.
        """
        if not isinstance(value, dict):
            raise ImageRefused(f"{what}: not a descriptor")
        media_type, digest, size = (value.get(name) for name in ("mediaType", "digest", "size"))
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise ImageRefused(f"{what}: mediaType is missing or no media type")
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            raise ImageRefused(f"{what}: size is missing or no size")
        _check_annotations(value.get("annotations", {}), what)
        return cls(media_type, check_digest(digest, what), size, value)

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations, perhaps none."""
        found: Mapping[str, str] = self.members.get("annotations", {})
        return found

    def changed(self, media_type: str, digest: str, size: int, annotations: Mapping[str, str]) -> Descriptor:
        """One for other bytes: members stay in order, but for those that are or lead to the former bytes."""
        members = {name: value for name, value in self.members.items() if name not in ("data", "urls", "annotations")}
        members |= {"mediaType": media_type, "digest": digest, "size": size}
        if annotations:
            members["annotations"] = dict(annotations)
        return Descriptor(media_type, digest, size, members)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image, or another artefact in the form of one."""

    config: Descriptor
    layers: Sequence[Descriptor]
    members: Mapping[str, Json]


def describe(raw: bytes, media_type: str) -> Descriptor:
    """The descriptor of bytes at hand."""
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    return Descriptor(media_type, digest, len(raw), {"mediaType": media_type, "digest": digest, "size": len(raw)})


def check_digest(value: Json, what: str) -> str:
    """A digest that may become part of a path or an address.

    Raises:
        ImageRefused: not sha256 with 64 lower-case hexadecimal digits.
    """
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ImageRefused(f"{what}: digest is not sha256: with 64 hexadecimal digits")
    return value


def decode_members(raw: bytes, what: str) -> Mapping[str, Json]:
    """A JSON object: no repeated members, at most `MAX_DOCUMENT` bytes.

    Raises:
        ImageRefused: it is none.
    """
    try:
        value = strict_json.decode(raw, limits=_LIMITS)
    except KbsError as err:
        raise ImageRefused(f"{what}: {err}") from None
    if not isinstance(value, dict):
        raise ImageRefused(f"{what}: not a JSON object")
    return value


def media_type_of(members: Mapping[str, Json], what: str) -> str:
    """The media type of a manifest or index by its own words, or by its shape where it has none.

    Raises:
        ImageRefused: neither, or both shapes at once (which readers would take differently).
    """
    if "manifests" in members and ("layers" in members or "config" in members):
        raise ImageRefused(f"{what}: manifest and index at once")
    if members.get("schemaVersion") != 2:
        raise ImageRefused(f"{what}: schemaVersion is not 2")
    kinds = INDEXES if "manifests" in members else MANIFESTS
    media_type = members.get("mediaType", kinds[0])
    if media_type not in kinds:
        raise ImageRefused(f"{what}: mediaType does not fit what it holds")
    return str(media_type)


def read_manifest(members: Mapping[str, Json], what: str) -> Manifest:
    """The parts of a manifest.

    Raises:
        ImageRefused: it has not the shape of one.
    """
    layers = members.get("layers")
    if not isinstance(layers, list):
        raise ImageRefused(f"{what}: layers is missing or no list")
    config = Descriptor.read(members.get("config"), f"{what}: config")
    read = [Descriptor.read(each, f"{what}: layer {number}") for number, each in enumerate(layers)]
    return Manifest(config, read, members)


def read_index(members: Mapping[str, Json], what: str) -> list[Descriptor]:
    """The entries of an index.

    Raises:
        ImageRefused: it has not the shape of one.
    """
    entries = members.get("manifests")
    if not isinstance(entries, list):
        raise ImageRefused(f"{what}: manifests is missing or no list")
    return [Descriptor.read(each, f"{what}: entry {number}") for number, each in enumerate(entries)]


def platform_of(members: Mapping[str, Json]) -> str | None:
    """`os/architecture[/variant]` of a descriptor's `platform` or of a config; None where it says none."""
    parts = [members.get(name) for name in ("os", "architecture", "variant")]
    if not isinstance(parts[0], str) or not isinstance(parts[1], str):
        return None
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _check_annotations(value: Json, what: str) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ImageRefused(f"{what}: annotations are not texts by name")
