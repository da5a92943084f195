"""Attestations of guests before protocol 0.4.0: `{"tee-pubkey", "tee-evidence"}`, and nothing beside.

They repeat no nonce, so it is the evidence alone that says which challenge is answered; they have no devices and no
init data. What such a guest hashes is in `kbs.protocol.runtime_data`.

Source: guest-components 1.5; KBS protocol 12.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from kbs import strict_json
from kbs.errors import MalformedMessage, UnsupportedVersion
from kbs.protocol.tee import Tee
from kbs.protocol.tee_key import KeyAlgorithm, TeeKey, parse_tee_key
from kbs.strict_json import DEFAULT, Limits

Json = strict_json.Json


@dataclass(frozen=True, slots=True)
class OldAttestation:
    """`POST attest` before 0.4.0: decoded, nothing of it verified. Members that it cannot have are there as none."""

    tee_key: TeeKey
    primary_evidence: Json = field(repr=False)

    nonce: ClassVar[None] = None
    init_data: ClassVar[None] = None
    additional: ClassVar[tuple[tuple[Tee, Json], ...]] = ()


def decode_0_1_0(body: bytes, limits: Limits = DEFAULT) -> OldAttestation:
    """Evidence is a string that holds JSON; the key is for RSA1_5.

    Args:
        limits: for the body, and once more for the JSON in it.

    Raises:
        PayloadTooLarge: beyond the decoder's size limit.
        UnsupportedVersion: the form of 0.4.0.
        MalformedMessage: anything else.
    """
    message = _decode(body, limits)
    text = message["tee-evidence"]
    if not isinstance(text, str):
        raise MalformedMessage("tee-evidence: in protocol 0.1.0 a string that holds JSON")
    return OldAttestation(_rsa1_5(message), strict_json.decode(text.encode(), limits=limits))


def decode_0_1_1(body: bytes, limits: Limits = DEFAULT) -> OldAttestation:
    """Evidence is a JSON value; the key is for RSA1_5. Raises as `decode_0_1_0`."""
    message = _decode(body, limits)
    return OldAttestation(_rsa1_5(message), message["tee-evidence"])


def decode_0_2_0(body: bytes, limits: Limits = DEFAULT) -> OldAttestation:
    """Evidence is a JSON value; the key is one of today's. Raises as `decode_0_1_0`.

    A key for RSA1_5 is refused: guests of 0.2.0 have none, and those of 0.1.1, whose messages are the same otherwise,
    are not to answer challenges of 0.2.0.
    """
    message = _decode(body, limits)
    key = parse_tee_key(message.get("tee-pubkey"))
    if key.algorithm is KeyAlgorithm.RSA1_5:
        raise MalformedMessage("TEE key: protocol 0.2.0 has no keys with alg RSA1_5")
    return OldAttestation(key, message["tee-evidence"])


def _decode(body: bytes, limits: Limits) -> dict[str, Json]:
    message = strict_json.decode(body, limits=limits)
    if not isinstance(message, dict):
        raise MalformedMessage("Attestation is not an object")
    if "runtime-data" in message:  # two readers must not see two messages
        raise UnsupportedVersion("Attestation: of protocol 0.4.0, which the challenge was not asked for with")
    if "tee-evidence" not in message:
        raise MalformedMessage("Attestation: tee-evidence is missing")
    return message


def _rsa1_5(message: dict[str, Json]) -> TeeKey:
    """Guests of that time know no other algorithm: another one would be sealed in a form that they do not open."""
    key = parse_tee_key(message.get("tee-pubkey"))
    if key.algorithm is not KeyAlgorithm.RSA1_5:
        raise MalformedMessage("TEE key: protocol 0.1 has RSA keys with alg RSA1_5 only")
    return key
