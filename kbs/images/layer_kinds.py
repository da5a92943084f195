"""Media types of layers: which can be encrypted, what they become, and the names of the annotations beside them.

Source: OCI image-spec 1.1, layer; guest-components 2.1.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kbs.images.errors import ImageError, ImageRefused
from kbs.images.layer_options import PublicOptions, from_base64
from kbs.images.model import Descriptor
from kbs.images.packet import Packet, parse_packet

ENCRYPTED: Final = "+encrypted"
KEYS_PREFIX: Final = "org.opencontainers.image.enc.keys."
PROVIDER_PREFIX: Final = f"{KEYS_PREFIX}provider."
KEYS: Final = f"{PROVIDER_PREFIX}attestation-agent"  # the name that all tools of the field write
PUBLIC_OPTIONS: Final = "org.opencontainers.image.enc.pubopts"
_PARTIAL_PULL: Final = "io.github.containers.zstd-chunked."  # offsets into the zstd stream, wrong for any other
_MOST_PACKETS: Final = 64

_OCI: Final = "application/vnd.oci.image.layer.v1.tar"
_RESTRICTED: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER: Final = "application/vnd.docker.image.rootfs"
_GUEST: Final[Mapping[str, str]] = {
    **{name: name for base in (_OCI, _RESTRICTED) for name in (base, f"{base}+gzip")},
    f"{_OCI}+zstd": f"{_OCI}+gzip",
    f"{_RESTRICTED}+zstd": f"{_RESTRICTED}+gzip",
    f"{_DOCKER}.diff.tar": _OCI,
    f"{_DOCKER}.diff.tar.gzip": f"{_OCI}+gzip",
    f"{_DOCKER}.diff.tar.zstd": f"{_OCI}+gzip",
    f"{_DOCKER}.foreign.diff.tar.gzip": f"{_RESTRICTED}+gzip",
}
"""A layer's media type, and the one that a guest can decrypt."""


@dataclass(frozen=True, slots=True)
class SealedLayer:
    """An encrypted layer as its descriptor tells. others: kinds of keys that no broker has to do with (jwe, pgp …)."""

    packets: tuple[Packet, ...]
    public: PublicOptions
    others: tuple[str, ...]


def is_encrypted(layer: Descriptor) -> bool:
    """Whether the media type says so."""
    return layer.media_type.endswith(ENCRYPTED)


def is_layer(descriptor: Descriptor) -> bool:
    """Whether this is a file system layer, encrypted or not."""
    return descriptor.media_type.removesuffix(ENCRYPTED) in _GUEST


def is_zstd(layer: Descriptor) -> bool:
    """Whether it must be packed anew before a guest can decrypt it."""
    return layer.media_type.removesuffix(ENCRYPTED).endswith(("+zstd", ".zstd"))


def guest_media_type(layer: Descriptor, what: str) -> str:
    """The media type of this layer once it is encrypted for a guest.

    Raises:
        ImageRefused: it is encrypted already, or no layer that a guest could decrypt.
    """
    if is_encrypted(layer):
        raise ImageRefused(
            f"{what}: encrypted already", next_step="kbs image rekey gives it another KEK; --layer leaves it as it is"
        )
    found = _GUEST.get(layer.media_type)
    if found is None:
        raise ImageRefused(f"{what}: media type {layer.media_type} is none that guests decrypt")
    return found + ENCRYPTED


def sealed_annotations(layer: Descriptor, packet: bytes, public: PublicOptions) -> dict[str, str]:
    """The annotations of a layer once it is encrypted."""
    kept = {
        name: text
        for name, text in layer.annotations.items()
        if not name.startswith(KEYS_PREFIX) and not (is_zstd(layer) and name.startswith(_PARTIAL_PULL))
    }
    return {**kept, KEYS: _encoded(packet), PUBLIC_OPTIONS: _encoded(public.encode())}


def rekeyed_annotations(layer: Descriptor, packet: bytes) -> dict[str, str]:
    """The annotations with one packet in place of all that key providers wrote; keys of other kinds stay."""
    kept = {name: text for name, text in layer.annotations.items() if not name.startswith(PROVIDER_PREFIX)}
    return {**kept, KEYS: _encoded(packet)}


def opened_annotations(layer: Descriptor) -> dict[str, str]:
    """The annotations without those of encryption."""
    return {
        name: text
        for name, text in layer.annotations.items()
        if name != PUBLIC_OPTIONS and not name.startswith(KEYS_PREFIX)
    }


def read_sealed(layer: Descriptor, what: str) -> SealedLayer:
    """What an encrypted layer's annotations say.

    Raises:
        ImageError: an annotation that is missing or does not decode.
    """
    packets: list[Packet] = []
    others = []
    for name, text in layer.annotations.items():
        if name.startswith(PROVIDER_PREFIX):
            parts = text.split(",")
            if len(packets) + len(parts) > _MOST_PACKETS:
                raise ImageRefused(f"{what}: more than {_MOST_PACKETS} annotation packets")
            packets += (parse_packet(_decoded(part, what)) for part in parts)
        elif name.startswith(KEYS_PREFIX):
            others.append(name.removeprefix(KEYS_PREFIX)[:100])
    if PUBLIC_OPTIONS not in layer.annotations:
        raise ImageRefused(f"{what}: encrypted, but the annotation {PUBLIC_OPTIONS} is missing")
    try:
        public = PublicOptions.decode(_decoded(layer.annotations[PUBLIC_OPTIONS], what))
    except ImageError as err:
        raise ImageRefused(f"{what}: {err}") from None
    if not packets and not others:
        raise ImageRefused(f"{what}: encrypted, but no annotation {PROVIDER_PREFIX}… holds its key")
    return SealedLayer(tuple(packets), public, tuple(others))


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decoded(text: str, what: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError:
        raise ImageRefused(f"{what}: an annotation of encryption is not standard base64") from None
