"""Settings of the CCA verifier: enrolled platform keys and approved firmware, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.verifiers.cca.token import (
    HASH_SIZES,
    IMPLEMENTATION_ID_SIZE,
    INSTANCE_ID_SIZE,
    UEID_RANDOM,
)
from kbs.errors import ConfigInvalid, MalformedMessage
from kbs.protocol import base64url
from kbs.protocol.tee_key import CURVES

_KNOWN: Final = {"cca_trust_anchors", "cca_sw_components"}

PlatformKeys = Mapping[tuple[bytes, bytes], ec.EllipticCurvePublicKey]
"""CPAK public keys by implementation id and instance id."""


@dataclass(frozen=True, slots=True)
class ApprovedComponent:
    """A firmware component that may run on a platform. type: None matches a component that names none."""

    type: str | None
    measurement: bytes
    signer_id: bytes


@dataclass(frozen=True, slots=True)
class CcaOptions:
    """What an operator enrols and approves.

    platform_keys: option `cca_trust_anchors`, a list as in the trust-anchor store of the reference implementation:
        `{"implementation-id": hex, "instance-id": hex, "pkey": JWK}`.
    sw_components: option `cca_sw_components`, a list of `{"type", "measurement", "signer_id"}`, hex but the type;
        None: not given, so that the policy alone decides about firmware.
    """

    platform_keys: PlatformKeys = field(default_factory=dict)
    sw_components: frozenset[ApprovedComponent] | None = None


def read_options(options: Mapping[str, Any]) -> CcaOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or member, a value of a wrong type, a key that is no point, a platform twice.
    """
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"cca: unknown options {sorted(unknown)}")
    given = options.get("cca_sw_components")
    components = None if given is None else frozenset(map(_component, _list(given, "cca_sw_components")))
    return CcaOptions(_platform_keys(options.get("cca_trust_anchors", []), "cca_trust_anchors"), components)


def read_anchors(anchors: Mapping[str, Any]) -> PlatformKeys:
    """Platforms enrolled instead of those of the options.

    Args:
        anchors: one of them, as `cpak` (JWK), `implementation_id` and `instance_id` (hex); or `trust_anchors`, a list
            like the option `cca_trust_anchors`.

    Raises:
        ConfigInvalid: a member missing, unknown or unusable.
    """
    if set(anchors) == {"trust_anchors"}:
        return _platform_keys(anchors["trust_anchors"], "trust_anchors")
    found = _members(anchors, "anchors", {"cpak", "implementation_id", "instance_id"})
    return {_platform(found["implementation_id"], found["instance_id"]): _key(found["cpak"])}


def _platform_keys(entries: Any, name: str) -> PlatformKeys:
    keys: dict[tuple[bytes, bytes], ec.EllipticCurvePublicKey] = {}
    for entry in _list(entries, name):
        found = _members(entry, name, {"implementation-id", "instance-id", "pkey"})
        platform = _platform(found["implementation-id"], found["instance-id"])
        if platform in keys:
            raise ConfigInvalid(f"cca: {name} has a platform twice")
        keys[platform] = _key(found["pkey"])
    return keys


def _platform(implementation_id: Any, instance_id: Any) -> tuple[bytes, bytes]:
    instance = _octets(instance_id, "instance id", (INSTANCE_ID_SIZE,))
    if instance[0] != UEID_RANDOM:
        raise ConfigInvalid("cca: an instance id begins with 01")
    return _octets(implementation_id, "implementation id", (IMPLEMENTATION_ID_SIZE,)), instance


def _key(jwk: Any) -> ec.EllipticCurvePublicKey:
    """A public key: `kty` EC, `crv`, `x`, `y`. Other members, such as `kid`, are ignored."""
    if not isinstance(jwk, Mapping) or jwk.get("kty") != "EC" or "d" in jwk:
        raise ConfigInvalid("cca: a platform key is the JWK of a public key on an elliptic curve")
    curve = CURVES.get(jwk["crv"]) if isinstance(jwk.get("crv"), str) else None
    if curve is None:
        raise ConfigInvalid("cca: a platform key is on P-256, P-384 or P-521")
    try:
        x, y = (base64url.decode(jwk[name]) for name in ("x", "y"))
        if not len(x) == len(y) == curve.width:
            raise ValueError("coordinate of another width")
        return ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, b"\x04" + x + y)
    except (KeyError, AttributeError, ValueError, MalformedMessage) as err:
        raise ConfigInvalid("cca: a platform key is not a point on its curve") from err


def _component(entry: Any) -> ApprovedComponent:
    found = _members(entry, "cca_sw_components", {"measurement", "signer_id"}, optional={"type"})
    kind = found.get("type")
    if kind is not None and not isinstance(kind, str):
        raise ConfigInvalid("cca: the type of a component is text")
    sizes = tuple(HASH_SIZES.values())
    return ApprovedComponent(
        kind, _octets(found["measurement"], "measurement", sizes), _octets(found["signer_id"], "signer id", sizes)
    )


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigInvalid(f"cca: {name} is not a list")
    return value


def _members(entry: Any, name: str, required: set[str], optional: set[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping) or not required <= set(entry) <= required | (optional or set()):
        raise ConfigInvalid(f"cca: {name}: an object with {', '.join(sorted(required))}")
    return entry


def _octets(value: Any, name: str, sizes: tuple[int, ...]) -> bytes:
    try:
        octets = bytes.fromhex(value)
    except (TypeError, ValueError):
        raise ConfigInvalid(f"cca: {name} is not hex") from None
    if len(octets) not in sizes:
        raise ConfigInvalid(f"cca: {name} has a wrong length")
    return octets
