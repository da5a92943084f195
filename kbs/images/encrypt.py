"""Encrypt the layers of an image under one KEK.

Source: guest-components 2.1, 2.5.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from kbs.images.errors import ImageRefused
from kbs.images.kek import Random
from kbs.images.layer_cipher import LayerEncryptor
from kbs.images.layer_kinds import guest_media_type, is_zstd, sealed_annotations
from kbs.images.layer_options import PublicOptions
from kbs.images.model import Descriptor
from kbs.images.packet import WrapType, wrap
from kbs.images.packing import Measured, zstd_to_gzip
from kbs.images.rewrite import Copy, LayerPlace, Outcome, Rewriter, Written, counted
from kbs.secret import Secret


@dataclass(frozen=True, slots=True)
class Sealing:
    """How to encrypt.

    kek: 32 bytes. kid: resolved. layers: numbers of layers, negative ones from the end; empty: all. platforms: see
    `Rewriter`.
    """

    kek: Secret
    kid: str
    wrap_type: WrapType = WrapType.A256GCM
    layers: Sequence[int] = ()
    platforms: Sequence[str] = ()
    random: Random = secrets.token_bytes


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A layer that was written encrypted."""

    digest: str
    size: int
    packet: bytes
    public: PublicOptions


@dataclass(slots=True)
class _Encrypt:
    """The rule. done: layers of one digest and type are encrypted once, so that platforms go on sharing them."""

    sealing: Sealing
    done: dict[tuple[str, str], _Sealed] = field(default_factory=dict)

    def wants(self, layer: Descriptor, place: LayerPlace) -> bool:
        chosen = self.sealing.layers
        for number in chosen:
            if not -place.count <= number < place.count:
                raise ImageRefused(f"{place.what}: the image has {place.count} layers, there is no layer {number}")
        if chosen and not {place.number, place.number - place.count} & set(chosen):
            return False
        guest_media_type(layer, place.what)
        if is_zstd(layer) and place.diff_id is None:
            raise ImageRefused(
                f"{place.what}: zstd, and the config names no diff_id to compare the unpacked layer with"
            )
        return True

    def apply(self, layer: Descriptor, place: LayerPlace, copy: Copy) -> Descriptor:
        key = (layer.digest, layer.media_type)
        if key not in self.done:
            self.done[key] = self._sealed(layer, place, copy)
        done = self.done[key]
        annotations = sealed_annotations(layer, done.packet, done.public)
        return layer.changed(guest_media_type(layer, place.what), done.digest, done.size, annotations)

    def _sealed(self, layer: Descriptor, place: LayerPlace, copy: Copy) -> _Sealed:
        sealing, encryptor = self.sealing, LayerEncryptor(self.sealing.random)
        verb = "repack and encrypt" if is_zstd(layer) else "encrypt"
        plain = counted(copy.source.blob(layer), copy.progress.layer(f"{verb} {place.what}", layer.size))
        if is_zstd(layer):
            assert place.diff_id is not None  # `wants` saw to it
            repacked = Measured(zstd_to_gzip(plain, place.diff_id))
            digest, size = copy.target.write_blob(encryptor.pieces(repacked))
            private, public = encryptor.finish(repacked.digest())
        else:
            digest, size = copy.target.write_blob(encryptor.pieces(plain))
            private, public = encryptor.finish(layer.digest)  # which the source compared at the end
        packet = wrap(private.encode(), sealing.kek, sealing.kid, sealing.wrap_type, random=sealing.random)
        return _Sealed(digest, size, packet, public)


def encrypt(copy: Copy, sealing: Sealing) -> tuple[Written, Outcome]:
    """Write an image encrypted; all but its name, which `Target.commit` gives it.

    Raises:
        ImageError: see `Rewriter`; a layer that cannot be encrypted or is already; no layer at all. OSError: files.
    """
    rewriter = Rewriter(copy, _Encrypt(sealing), sealing.platforms)
    written = rewriter.run()
    if not rewriter.outcome.changed:
        raise ImageRefused("there is no layer to encrypt in this image")
    return written, rewriter.outcome
