"""Decrypt the layers of an image, or put their keys under another KEK. A layer's own key comes out of its packets.

Source: guest-components 2.1, 2.2, 2.6.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kbs.images.errors import ImageError, ImageRefused, KidRefused, PacketRefused
from kbs.images.kek import Random
from kbs.images.layer_cipher import decrypted
from kbs.images.layer_kinds import (
    ENCRYPTED,
    SealedLayer,
    is_encrypted,
    opened_annotations,
    read_sealed,
    rekeyed_annotations,
)
from kbs.images.layer_options import PrivateOptions, PublicOptions
from kbs.images.model import Descriptor
from kbs.images.packet import Packet, WrapType, unwrap, wrap
from kbs.images.packing import Measured, unpacked
from kbs.images.rewrite import Copy, LayerPlace, Outcome, Rewriter, Written, counted
from kbs.secret import Secret

_REPAIR: Final = "kbs image rekey with --old-kek-file FILE puts the layer keys under a name that guests can ask for"

KekOf = Callable[[Packet], Secret]
"""The KEK that a packet names. May raise `ImageError`, and what getting it raises."""


@dataclass(frozen=True, slots=True)
class Rewrapping:
    """The new KEK of an image. kid: resolved. old: gives the KEK that its packets have now."""

    old: KekOf
    kek: Secret
    kid: str
    wrap_type: WrapType = WrapType.A256GCM
    platforms: Sequence[str] = ()
    random: Random = secrets.token_bytes


@dataclass(slots=True)
class _Decrypt:
    """The rule. done: layers with the same bytes and annotations are decrypted once."""

    kek_of: KekOf
    done: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)

    def wants(self, layer: Descriptor, place: LayerPlace) -> bool:
        if is_encrypted(layer):
            _private(read_sealed(layer, place.what), self.kek_of, place, any_kid=False)
        return is_encrypted(layer)

    def apply(self, layer: Descriptor, place: LayerPlace, copy: Copy) -> Descriptor:
        sealed = read_sealed(layer, place.what)
        private = _private(sealed, self.kek_of, place, any_kid=False)
        key = (layer.digest, private.digest)
        if key not in self.done:
            label = f"decrypt {place.what}"
            try:
                self.done[key] = copy.target.write_blob(_opened(layer, private, sealed.public, copy, label))
                if not hmac.compare_digest(self.done[key][0], private.digest):
                    again = _opened(layer, private, sealed.public, copy, f"unpack {place.what}")
                    _check_unpacked(again, layer, place)
            except ImageRefused as err:
                raise ImageRefused(f"{place.what}: {err}") from None
        digest, size = self.done[key]
        return layer.changed(layer.media_type.removesuffix(ENCRYPTED), digest, size, opened_annotations(layer))


def _opened(
    layer: Descriptor, private: PrivateOptions, public: PublicOptions, copy: Copy, label: str
) -> Iterator[bytes]:
    pieces = counted(copy.source.blob(layer), copy.progress.layer(label, layer.size))
    return decrypted(pieces, private, public)


def _check_unpacked(pieces: Iterable[bytes], layer: Descriptor, place: LayerPlace) -> None:
    """Take another digest than the key's options name if the layer's tar is the one that the config names.

    NOTE: containers/image writes the digest from before it packed a layer itself, and guests compare `diff_id` alone.
    """
    measured = Measured(unpacked(pieces, layer.media_type.removesuffix(ENCRYPTED)))
    for _ in measured:
        continue
    if place.diff_id is None or not hmac.compare_digest(measured.digest(), place.diff_id):
        raise ImageRefused("decrypted, the layer is neither what its key's options name nor what the config names")


@dataclass(slots=True)
class _Rekey:
    """The rule. The layers' bytes stay; only their packets are new."""

    new: Rewrapping

    def wants(self, layer: Descriptor, place: LayerPlace) -> bool:
        if is_encrypted(layer):
            _private(read_sealed(layer, place.what), self.new.old, place, any_kid=True)
        return is_encrypted(layer)

    def apply(self, layer: Descriptor, place: LayerPlace, copy: Copy) -> Descriptor:
        new = self.new
        private = _private(read_sealed(layer, place.what), new.old, place, any_kid=True)
        packet = wrap(private.encode(), new.kek, new.kid, new.wrap_type, random=new.random)
        copy.layer(layer, place.what)
        return layer.changed(layer.media_type, layer.digest, layer.size, rekeyed_annotations(layer, packet))


def decrypt(copy: Copy, kek_of: KekOf, platforms: Sequence[str] = ()) -> tuple[Written, Outcome]:
    """Write an image decrypted; all but its name, which `Target.commit` gives it.

    Raises:
        ImageError: see `Rewriter`; no packet that the KEK opens; a MAC or digest that differs; nothing encrypted.
        OSError: files.
    """
    return _run(Rewriter(copy, _Decrypt(kek_of), platforms))


def rekey(copy: Copy, new: Rewrapping) -> tuple[Written, Outcome]:
    """Write an image whose packets are under another KEK; all but its name, which `Target.commit` gives it.

    Packets whose `kid` no guest could ask for are opened too: this is how such images are repaired.

    Raises:
        ImageError: see `Rewriter`; no packet that the old KEK opens; nothing encrypted. OSError: files.
    """
    return _run(Rewriter(copy, _Rekey(new), new.platforms))


def _run(rewriter: Rewriter) -> tuple[Written, Outcome]:
    written = rewriter.run()
    if not rewriter.outcome.changed:
        raise ImageRefused("no layer of this image is encrypted")
    return written, rewriter.outcome


def _private(sealed: SealedLayer, kek_of: KekOf, place: LayerPlace, *, any_kid: bool) -> PrivateOptions:
    """The layer's options out of the first packet that opens; else the refusal of the first one."""
    first: ImageError | None = None
    for packet in sealed.packets:
        try:
            return PrivateOptions.decode(unwrap(packet, kek_of(packet), any_kid=any_kid))
        except ImageError as err:
            first = first or err
    if first is None:
        raise PacketRefused(
            f"{place.what}: its key is wrapped by {', '.join(sealed.others)} only, not by a broker's KEK"
        )
    step = _REPAIR if isinstance(first, KidRefused) else first.next_step
    raise type(first)(f"{place.what}: {first}", next_step=step)
