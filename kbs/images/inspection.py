"""Who can decrypt an image, and what is wrong with it, by its manifests alone. No layer is read.

Source: guest-components 1.10, 2.1, 2.2, 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kbs.images.errors import ImageError, KidRefused
from kbs.images.kid import guest_resource
from kbs.images.layer_kinds import ENCRYPTED, KEYS, is_encrypted, is_layer, is_zstd, read_sealed
from kbs.images.model import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    Descriptor,
    decode_members,
    media_type_of,
    platform_of,
    read_index,
    read_manifest,
)
from kbs.images.packet import Packet, WrapType
from kbs.images.places import Source, short

_DEPTH: Final = 3
_MOST_MANIFESTS: Final = 1000


@dataclass(frozen=True, slots=True)
class PacketReport:
    """One packet. resource: what a guest asks its broker for; None where it cannot ask."""

    kid: str
    provider: str
    wrap_type: str | None
    resource: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer, encrypted or not."""

    number: int
    media_type: str
    digest: str
    size: int
    encrypted: bool
    packets: tuple[PacketReport, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlatformReport:
    """One platform's image. platform: None for what is no image."""

    platform: str | None
    digest: str
    layers: tuple[LayerReport, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """All of what a name leads to."""

    media_type: str
    digest: str
    platforms: tuple[PlatformReport, ...]


def inspect(source: Source) -> ImageReport:
    """Read manifests and configs.

    Raises:
        ImageError: one that cannot be had or does not hold together. Broken annotations are problems in the report.
    """
    root = source.root()
    return ImageReport(root.media_type, root.digest, tuple(_documents(source, root, 0)))


def _documents(source: Source, descriptor: Descriptor, depth: int) -> list[PlatformReport]:
    what = f"manifest {short(descriptor.digest)}"
    members = decode_members(source.document(descriptor), what)
    if media_type_of(members, what) not in INDEXES:
        return [_platform(source, descriptor)]
    entries = read_index(members, what)
    if depth >= _DEPTH or len(entries) > _MOST_MANIFESTS:
        raise ImageError(f"{what}: indexes nested more than {_DEPTH} deep, or more than {_MOST_MANIFESTS} entries")
    return [report for entry in entries for report in _documents(source, entry, depth + 1)]


def _platform(source: Source, descriptor: Descriptor) -> PlatformReport:
    what = f"manifest {short(descriptor.digest)}"
    manifest = read_manifest(decode_members(source.document(descriptor), what), what)
    platform = None
    if manifest.config.media_type in (CONFIG, DOCKER_CONFIG):
        config = decode_members(source.document(manifest.config), f"config {short(manifest.config.digest)}")
        platform = platform_of(config)
    layers = tuple(_layer(number, layer) for number, layer in enumerate(manifest.layers))
    sealed = [layer for layer in layers if layer.encrypted]
    problems = []
    if sealed and len(sealed) < len(layers):
        problems.append(f"{len(layers) - len(sealed)} of {len(layers)} layers are not encrypted")
    if len({packet.kid for layer in sealed for packet in layer.packets}) > 1:
        problems.append("several KEKs: a guest must be granted each of them")
    return PlatformReport(platform, descriptor.digest, layers, tuple(problems))


def _layer(number: int, layer: Descriptor) -> LayerReport:
    encrypted, problems = is_encrypted(layer), []
    packets: tuple[PacketReport, ...] = ()
    if encrypted:
        try:
            sealed = read_sealed(layer, f"layer {number}")
        except ImageError as err:
            problems.append(str(err))
        else:
            packets = tuple(map(_packet, sealed.packets))
            if not packets:
                problems.append(f"its key is wrapped by {', '.join(sealed.others)} only, which no guest opens")
            elif KEYS not in layer.annotations:
                problems.append(f"its packets are not under {KEYS}, the name that tools of the field write")
        if is_zstd(layer):
            problems.append("zstd: guests decrypt tar and tar+gzip only; encrypt the plain image again, it is repacked")
        elif not is_layer(layer):
            problems.append(f"media type {layer.media_type.removesuffix(ENCRYPTED)} is none that guests decrypt")
    return LayerReport(number, layer.media_type, layer.digest, layer.size, encrypted, packets, tuple(problems))


def _packet(packet: Packet) -> PacketReport:
    problems, resource = [], None
    try:
        resource = str(guest_resource(packet.kid))
    except KidRefused as err:
        problems.append(str(err))
    if packet.wrap_type is None:
        problems.append(f"provider {packet.provider}: not a broker's business")
    elif packet.wrap_type is WrapType.A256CTR:
        problems.append("A256CTR authenticates nothing; kbs image rekey makes it A256GCM")
    wrap_type = None if packet.wrap_type is None else packet.wrap_type.value
    return PacketReport(packet.kid, packet.provider, wrap_type, resource, tuple(problems))
