"""Annotation packets: a layer's private options under a KEK, byte for byte as the reference's key provider writes them.

Source: guest-components 2.2, 2.5; NIST SP 800-38D (GCM), SP 800-38A (CTR).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import ImageRefused, PacketRefused
from kbs.images.kek import Random
from kbs.images.kid import guest_resource, resolve_kid
from kbs.images.layer_options import PrivateOptions, from_base64
from kbs.secret import Secret
from kbs.strict_json import Json

PROVIDER: Final = "kbs"
_VERSION: Final = "0.1.0"  # of packets that name one
_LIMITS: Final = strict_json.Limits(size=64 << 10, depth=8, tokens=1000)


class WrapType(StrEnum):
    """How a KEK wraps. A256CTR authenticates nothing: a wrong KEK yields rubbish, a changed packet another key."""

    A256GCM = "A256GCM"
    A256CTR = "A256CTR"


_IV_SIZES: Final = {WrapType.A256GCM: 12, WrapType.A256CTR: 16}  # bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it was read. Nothing in it is authentic before it is unwrapped.

    kid: as written, perhaps not a URI. provider: who unwraps; only `kbs` has a known wrap type and IV.
    """

    kid: str
    wrapped_data: bytes
    iv: bytes
    wrap_type: WrapType | None
    provider: str = PROVIDER


def wrap(
    plbco: Secret,
    kek: Secret,
    kid: str,
    wrap_type: WrapType = WrapType.A256GCM,
    *,
    random: Random = secrets.token_bytes,
) -> bytes:
    """The packet for a layer's private options, with a fresh IV.

    Args:
        plbco: the encoded private options.
        kek: 32 bytes, of `check_kek`.
        kid: resolved as `resolve_kid` does.

    Raises:
        KidRefused: a name that a guest could not ask for.
    """
    name = resolve_kid(kid)
    iv = random(_IV_SIZES[wrap_type])
    if wrap_type is WrapType.A256GCM:
        wrapped = AESGCM(kek.reveal()).encrypt(iv, plbco.reveal(), None)
    else:
        wrapped = _counter_mode(kek, iv, plbco.reveal())
    members = {
        "kid": name,
        "wrapped_data": base64.b64encode(wrapped).decode("ascii"),
        "iv": base64.b64encode(iv).decode("ascii"),
        "wrap_type": wrap_type.value,
    }
    return strict_json.encode(members)


def unwrap(packet: bytes | Packet, kek: Secret, *, any_kid: bool = False) -> Secret:
    """The encoded private options in a packet.

    Args:
        packet: its JSON, or what `parse_packet` made of it.
        kek: 32 bytes, of `check_kek`.
        any_kid: also packets whose `kid` no guest could ask for, so that such images can be given a better one.

    Raises:
        PacketRefused: it does not parse, is for another provider, or this KEK does not open it.
        KidRefused: guests refuse its `kid`.
    """
    read = packet if isinstance(packet, Packet) else parse_packet(packet)
    if read.wrap_type is None:
        raise PacketRefused(f"the packet is wrapped by provider {read.provider!r}, which only that service opens")
    if not any_kid:
        guest_resource(read.kid)
    if read.wrap_type is WrapType.A256GCM:
        try:
            plain = AESGCM(kek.reveal()).decrypt(read.iv, read.wrapped_data, None)
        except InvalidTag:
            raise PacketRefused(f"the KEK does not open the packet of {read.kid}: another key, or changed") from None
    else:
        plain = _counter_mode(kek, read.iv, read.wrapped_data)
    private = Secret(plain)
    try:
        PrivateOptions.decode(private)
    except ImageRefused as err:
        raise PacketRefused(f"the KEK does not open the packet of {read.kid}, or it is damaged: {err}") from None
    return private


def parse_packet(raw: bytes) -> Packet:
    """Read a packet without trusting it. `kid` may be any text: see `guest_resource`.

    Raises:
        PacketRefused: not JSON of version 1 or 2; unknown wrap type; an IV of another length than its wrap type's.
    """
    try:
        members = strict_json.decode(raw, limits=_LIMITS)
    except KbsError as err:
        raise PacketRefused(f"annotation packet: {err}") from None
    if not isinstance(members, dict):
        raise PacketRefused("annotation packet: not a JSON object")
    if members.get("version", _VERSION) != _VERSION:
        raise PacketRefused(f"annotation packet: a version other than {_VERSION}")
    kid, wrapped = _text(members, "kid"), _decoded(members, "wrapped_data")
    provider = _text(members, "provider") if "provider" in members else PROVIDER
    if not kid.isprintable() or not provider.isprintable():
        raise PacketRefused("annotation packet: control characters in kid or provider")
    if provider != PROVIDER:
        return Packet(kid, wrapped, b"", None, provider)
    try:
        wrap_type = WrapType(_text(members, "wrap_type"))
    except ValueError:
        raise PacketRefused(f"annotation packet: wrap_type is none of {', '.join(WrapType)}") from None
    iv = _decoded(members, "iv")
    if len(iv) != _IV_SIZES[wrap_type]:
        raise PacketRefused(
            f"annotation packet: iv has {len(iv)} bytes, {wrap_type} takes {_IV_SIZES[wrap_type]} (iv length)"
        )
    return Packet(kid, wrapped, iv, wrap_type)


def _counter_mode(key: Secret, counter: bytes, data: bytes) -> bytes:
    # The `iv` of CTR is the whole initial counter block, big-endian; wrapping and unwrapping are one operation.
    stream = Cipher(algorithms.AES256(key.reveal()), modes.CTR(counter)).encryptor()
    return stream.update(data) + stream.finalize()


def _text(members: Mapping[str, Json], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise PacketRefused(f"annotation packet: {name} is missing or no text")
    return value


def _decoded(members: Mapping[str, Json], name: str) -> bytes:
    try:
        return from_base64(_text(members, name))
    except ValueError:
        raise PacketRefused(f"annotation packet: {name} is not standard base64 with padding") from None
