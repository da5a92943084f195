"""What a sealed secret says: where its value is kept (vault), or the encrypted value itself (envelope).

Members stand in the order in which the field's tools write them; members that are not known are left alone, as guests
do. Source: guest-components 3.2.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from kbs import strict_json
from kbs.errors import KbsError, NameNotAllowed
from kbs.protocol.resource_uri import ResourceUri, parse_uri
from kbs.sealed.errors import SealedRefused
from kbs.strict_json import Json

VERSION: Final = "0.1.0"
KBS: Final = "kbs"
VAULT_PROVIDERS: Final = (KBS, "aliyun", "aws")
ENVELOPE_PROVIDERS: Final = ("aliyun", "aws", "ehsm")
_LIMITS: Final = strict_json.Limits(size=1 << 20, depth=16, tokens=2000)


class WrapType(StrEnum):
    """How a data key encrypts. A256CTR authenticates nothing: what comes out may be anything."""

    A256GCM = "A256GCM"
    A256CTR = "A256CTR"


IV_SIZES: Final = {WrapType.A256GCM: 12, WrapType.A256CTR: 16}  # bytes


@dataclass(frozen=True, slots=True)
class Vault:
    """A pointer. name: for the provider `kbs` a resource URI."""

    name: str
    provider: str = KBS
    provider_settings: Mapping[str, Json] = field(default_factory=dict)
    annotations: Mapping[str, Json] = field(default_factory=dict)

    @property
    def uri(self) -> ResourceUri | None:
        """What a guest asks its broker for; None where another provider keeps the value."""
        return parse_uri(self.name) if self.provider == KBS else None


@dataclass(frozen=True, slots=True)
class Envelope:
    """An encrypted value.

    encrypted_key: the data key under the KMS key `key_id`. encrypted_data: with the tag at its end for A256GCM.
    """

    key_id: str
    encrypted_key: bytes
    encrypted_data: bytes
    wrap_type: WrapType
    iv: bytes
    provider: str
    provider_settings: Mapping[str, Json] = field(default_factory=dict)
    annotations: Mapping[str, Json] = field(default_factory=dict)


Payload = Vault | Envelope


def encode(payload: Payload) -> bytes:
    """The compact JSON that is signed.

    Raises:
        SealedRefused: `decode` would not take it back.
    """
    members: dict[str, Json] = {"version": VERSION}
    if isinstance(payload, Vault):
        members |= {"type": "vault", "name": payload.name}
    else:
        members |= {
            "type": "envelope",
            "key_id": payload.key_id,
            "encrypted_key": _base64(payload.encrypted_key),
            "encrypted_data": _base64(payload.encrypted_data),
            "wrap_type": payload.wrap_type.value,
            "iv": _base64(payload.iv),
        }
    members |= {
        "provider": payload.provider,
        "provider_settings": dict(payload.provider_settings),
        "annotations": dict(payload.annotations),
    }
    text = strict_json.encode(members)
    decode(text)
    return text


def decode(raw: bytes) -> Payload:
    """Read the JSON of a payload; nothing in it is authentic before its signature was verified.

    Raises:
        SealedRefused: not of version 0.1.0; a member missing, repeated or of the wrong type; a provider that no guest
            knows or that cannot do what is asked of it; a name that asks for what no broker has.
    """
    try:
        members = strict_json.decode(raw, limits=_LIMITS)
    except KbsError as err:
        raise SealedRefused(f"payload: {err}") from None
    if not isinstance(members, dict):
        raise SealedRefused("payload: not a JSON object")
    if members.get("version") != VERSION:
        raise SealedRefused(f"payload: version must be {VERSION}")
    kind = members.get("type")
    if kind == "vault":
        return _vault(members)
    if kind == "envelope":
        return _envelope(members)
    raise SealedRefused("payload: type is neither vault nor envelope")


def _vault(members: Mapping[str, Json]) -> Vault:
    settings, annotations = _object(members, "provider_settings"), _object(members, "annotations")
    provider = _provider(members, "vault", VAULT_PROVIDERS)
    found = Vault(_text(members, "name"), provider, settings, annotations)
    try:
        found.uri  # noqa: B018 - its grammar
    except NameNotAllowed as err:
        raise SealedRefused(f"payload: name: {err}") from None
    return found


def _envelope(members: Mapping[str, Json]) -> Envelope:
    settings, annotations = _object(members, "provider_settings"), _object(members, "annotations")
    provider = _text(members, "provider")
    if provider == KBS:
        raise SealedRefused(
            "payload: guests refuse an envelope of the provider kbs (unsupported provider): a broker hands out and "
            "does not decrypt; store the value at the broker and seal a vault secret"
        )
    provider = _provider(members, "envelope", ENVELOPE_PROVIDERS)
    try:
        wrap_type = WrapType(_text(members, "wrap_type"))
    except ValueError:
        raise SealedRefused(f"payload: wrap_type is none of {', '.join(WrapType)}") from None
    iv = _bytes(members, "iv")
    if len(iv) != IV_SIZES[wrap_type]:
        raise SealedRefused(f"payload: iv has {len(iv)} bytes, {wrap_type} takes {IV_SIZES[wrap_type]}")
    return Envelope(
        _text(members, "key_id"),
        _bytes(members, "encrypted_key"),
        _bytes(members, "encrypted_data"),
        wrap_type,
        iv,
        provider,
        settings,
        annotations,
    )


def _provider(members: Mapping[str, Json], kind: str, known: tuple[str, ...]) -> str:
    provider = _text(members, "provider")
    if provider not in known:
        raise SealedRefused(f"payload: no guest has this provider for {kind} secrets; there are {', '.join(known)}")
    return provider


def _text(members: Mapping[str, Json], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise SealedRefused(f"payload: {name} is missing or no text")
    return value


def _object(members: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = members.get(name)
    if not isinstance(value, dict):
        raise SealedRefused(f"payload: {name} is mandatory, an object; write {{}} where there is nothing to say")
    return value


def _bytes(members: Mapping[str, Json], name: str) -> bytes:
    try:
        raw = binascii.a2b_base64(_text(members, name).encode("ascii"), strict_mode=True)
    except ValueError:
        raise SealedRefused(f"payload: {name} is not standard base64 with padding") from None
    return raw


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
