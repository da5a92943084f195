"""A CCA attestation token: two signed claim sets in one CBOR collection, read without trusting any of it.

Lengths, types and mandatory claims are those of the CDDL. Claims that are not known here are ignored: they are signed,
and newer profiles add some. Nothing here checks a signature.

Source: Arm DEN0137 (Realm Management Monitor specification) A7.2.3; draft-ffm-rats-cca-token-00 sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2

from kbs.attestation.cose import Cbor, Sign1, decode, read_sign1
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

MAX_TOKEN: Final = 64 * 1024  # octets; a real one has about 2 KiB
IMPLEMENTATION_ID_SIZE: Final = 32
INSTANCE_ID_SIZE: Final = 33
UEID_RANDOM: Final = 0x01  # first octet of an instance id (RFC 9711 section 4.2.1)
FIELD_SIZE: Final = 64  # realm challenge and personalization value
EXTENSIBLE_MEASUREMENTS: Final = 4
HASH_SIZES: Final[Mapping[str, int]] = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # IANA hash function names
LEGACY_KEY_SIZE: Final = 97  # an uncompressed point on P-384

_TAG_COLLECTION: Final = 399
_PLATFORM, _REALM = 44234, 44241
_MAX_COMPONENTS: Final = 256
_PLATFORM_PROFILES: Final = frozenset(
    {
        "http://arm.com/CCA-SSD/1.0.0",
        "tag:arm.com,2023:cca_platform#1.0.0",
        "tag:arm.com,2024:cca_platform#2.0.0",
    }
)
_REALM_PROFILES: Final = frozenset({"tag:arm.com,2023:realm#1.0.0", "tag:arm.com,2024:realm#2.0.0"})
_LIFECYCLES: Final = {  # bits 15:8; bits 7:0 are the implementation's
    0x00: "unknown",
    0x10: "assembly_and_test",
    0x20: "cca_platform_rot_provisioning",
    0x30: "secured",
    0x40: "non_cca_platform_rot_debug",
    0x50: "recoverable_cca_platform_rot_debug",
    0x60: "decommissioned",
}


@dataclass(frozen=True, slots=True)
class SwComponent:
    """One measured firmware component of the platform. Absent members are None."""

    type: str | None
    measurement: bytes
    version: str | None
    signer_id: bytes
    hash_algorithm: str | None


@dataclass(frozen=True, slots=True)
class PlatformClaims:
    """What the platform's root of trust says about itself."""

    profile: str
    challenge: bytes  # digest of the realm's public key claim
    implementation_id: bytes
    instance_id: bytes
    config: bytes
    lifecycle: int
    lifecycle_state: str
    hash_algorithm: str
    verification_service: str | None
    components: tuple[SwComponent, ...]


@dataclass(frozen=True, slots=True)
class RealmClaims:
    """What the realm management monitor says about one realm.

    public_key: the claim's octets: an uncompressed point on P-384 without a profile, an encoded COSE_Key with one.
    """

    profile: str | None
    challenge: bytes
    personalization_value: bytes
    hash_algorithm: str
    public_key: bytes = field(repr=False)
    public_key_hash_algorithm: str
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """Both messages, read; their payloads are not."""

    platform: Sign1
    realm: Sign1


def token_octets(body: Any) -> bytes:
    """The token in evidence: `{"token": [octets]}`, or the octets themselves.

    Raises:
        EvidenceMalformed.
    """
    if isinstance(body, bytes):
        return body
    octets = body.get("token") if isinstance(body, dict) else None
    if not isinstance(octets, list) or not 0 < len(octets) <= MAX_TOKEN:
        raise EvidenceMalformed("CCA evidence without a token as a list of octets")
    if list(map(type, octets)).count(int) != len(octets):
        raise EvidenceMalformed("CCA evidence without a token as a list of octets")
    try:
        return bytes(octets)
    except ValueError as err:
        raise EvidenceMalformed("CCA token has an element beyond an octet") from err


def read_token(octets: bytes) -> Token:
    """Take the collection apart.

    Raises:
        EvidenceMalformed: not tag 399 around exactly a platform and a realm token.
        EvidenceVersionUnsupported: a signature algorithm that is not allowed.
    """
    collection = decode(octets, tags=frozenset({_TAG_COLLECTION}), max_size=MAX_TOKEN)
    if not isinstance(collection, cbor2.CBORTag) or not isinstance(collection.value, Mapping):
        raise EvidenceMalformed("CCA token is not a collection under tag 399")
    parts = collection.value
    if parts.keys() != {_PLATFORM, _REALM} or not all(isinstance(part, bytes) for part in parts.values()):
        raise EvidenceMalformed("CCA token does not hold one platform and one realm token")
    return Token(read_sign1(parts[_PLATFORM], tagged=True), read_sign1(parts[_REALM], tagged=True))


def read_platform(payload: bytes) -> PlatformClaims:
    """Read the platform's claim set.

    Raises:
        EvidenceMalformed: a mandatory claim missing, or one of a wrong type, length or range.
        EvidenceVersionUnsupported: a profile that is not known.
    """
    claims = _claims(payload, "platform")
    profile = _text(claims, 265, "platform profile")
    if profile not in _PLATFORM_PROFILES:
        raise EvidenceVersionUnsupported("CCA platform token of an unknown profile")
    lifecycle = claims.get(2395)
    if type(lifecycle) is not int or lifecycle >> 8 not in _LIFECYCLES:
        raise EvidenceMalformed("CCA platform lifecycle is not a defined state")
    instance_id = _octets(claims, 256, "instance id", (INSTANCE_ID_SIZE,))
    if instance_id[0] != UEID_RANDOM:
        raise EvidenceMalformed("CCA instance id does not begin with 01")
    hash_algorithm = _hash_algorithm(claims, 2402, "platform hash algorithm")
    service = None if claims.get(2400) is None else _text(claims, 2400, "verification service")
    return PlatformClaims(
        profile=profile,
        challenge=_octets(claims, 10, "platform challenge"),
        implementation_id=_octets(claims, 2396, "implementation id", (IMPLEMENTATION_ID_SIZE,)),
        instance_id=instance_id,
        config=_octets(claims, 2401, "platform config", None),
        lifecycle=lifecycle,
        lifecycle_state=_LIFECYCLES[lifecycle >> 8],
        hash_algorithm=hash_algorithm,
        verification_service=service,
        components=_components(claims.get(2399), hash_algorithm),
    )


def read_realm(payload: bytes) -> RealmClaims:
    """Read the realm's claim set. Whether its public key is one, `checks` finds out.

    Raises:
        EvidenceMalformed: a mandatory claim missing, or one of a wrong type or length.
        EvidenceVersionUnsupported: a profile that is not known.
    """
    claims = _claims(payload, "realm")
    profile = None if 265 not in claims else _text(claims, 265, "realm profile")
    if profile is not None and profile not in _REALM_PROFILES:
        raise EvidenceVersionUnsupported("CCA realm token of an unknown profile")
    extensible = claims.get(44239)
    if not isinstance(extensible, list | tuple) or len(extensible) != EXTENSIBLE_MEASUREMENTS:
        raise EvidenceMalformed("CCA realm token has other than four extensible measurements")
    measured = dict(enumerate(extensible))
    return RealmClaims(
        profile=profile,
        challenge=_octets(claims, 10, "realm challenge", (FIELD_SIZE,)),
        personalization_value=_octets(claims, 44235, "realm personalization value", (FIELD_SIZE,)),
        hash_algorithm=_hash_algorithm(claims, 44236, "realm hash algorithm"),
        public_key=_octets(claims, 44237, "realm public key", (LEGACY_KEY_SIZE,) if profile is None else None),
        public_key_hash_algorithm=_hash_algorithm(claims, 44240, "realm public key hash algorithm"),
        initial_measurement=_octets(claims, 44238, "realm initial measurement"),
        extensible_measurements=tuple(_octets(measured, i, "realm extensible measurement") for i in measured),
    )


def _components(value: Cbor, default_hash: str) -> tuple[SwComponent, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MAX_COMPONENTS:
        raise EvidenceMalformed("CCA platform token has no software components")
    return tuple(_component(each, default_hash) for each in value)


def _component(value: Cbor, default_hash: str) -> SwComponent:
    if not isinstance(value, Mapping):
        raise EvidenceMalformed("CCA software component is not a map")
    own_hash = None if value.get(6) is None else _hash_algorithm(value, 6, "component hash algorithm")
    return SwComponent(
        type=None if value.get(1) is None else _text(value, 1, "component type"),
        measurement=_octets(value, 2, "component measurement", (HASH_SIZES[own_hash or default_hash],)),
        version=None if value.get(4) is None else _text(value, 4, "component version"),
        signer_id=_octets(value, 5, "component signer id"),
        hash_algorithm=own_hash,
    )


def _claims(payload: bytes, name: str) -> Mapping[int | str, Cbor]:
    claims = decode(payload)
    if not isinstance(claims, Mapping):
        raise EvidenceMalformed(f"CCA {name} token is not a map of claims")
    return claims


def _octets(
    claims: Mapping[Any, Cbor], key: int, name: str, sizes: tuple[int, ...] | None = tuple(HASH_SIZES.values())
) -> bytes:
    """A byte string; `sizes` None: of any length."""
    value = claims.get(key)
    if not isinstance(value, bytes) or (sizes is not None and len(value) not in sizes):
        raise EvidenceMalformed(f"CCA {name} is missing or of a wrong type or length")
    return value


def _text(claims: Mapping[Any, Cbor], key: int, name: str) -> str:
    value = claims.get(key)
    if not isinstance(value, str):
        raise EvidenceMalformed(f"CCA {name} is missing or not text")
    return value


def _hash_algorithm(claims: Mapping[Any, Cbor], key: int, name: str) -> str:
    value = _text(claims, key, name)
    if value not in HASH_SIZES:
        raise EvidenceMalformed(f"CCA {name} is not known")
    return value
