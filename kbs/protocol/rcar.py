"""The messages of the handshake: Request, Challenge, Attestation, Response.

Decoding turns octets into checked types and judges nothing further: evidence is opaque JSON here, the nonce a string
to be compared by whoever made it. Unknown members are ignored, repeated ones are refused.

Source: KBS protocol 2.2 to 2.5 (version 0.4.0). Attestations of older versions: `kbs.protocol.old_rcar`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from kbs import strict_json
from kbs.errors import MalformedMessage, TeeNotEnabled, UnsupportedVersion
from kbs.protocol.runtime_data import hash_for
from kbs.protocol.tee import TEES, Tee
from kbs.protocol.tee_key import TeeKey, parse_tee_key
from kbs.protocol.version import SPOKEN, ProtocolVersion, negotiate

Json = strict_json.Json

_NONCE_SIZE: Final = 32  # octets


@dataclass(frozen=True, slots=True)
class Request:
    """`POST auth`: who asks for a challenge."""

    version: ProtocolVersion
    tee: Tee
    extra_params: Json


class Challenge(msgspec.Struct, frozen=True):
    """The answer to a Request.

    nonce: text; the base64 of 32 random octets, for `se` a JSON text.
    extra_params: what `challenge_extra_params` chose.
    """

    nonce: str
    extra_params: Json

    def encode(self) -> bytes:
        """JSON with both members, in this order; guests need both."""
        return strict_json.encode({"nonce": self.nonce, "extra-params": self.extra_params})


@dataclass(frozen=True, slots=True)
class InitDataDocument:
    """Init data as sent. The digest is over the exact octets of `body` (UTF-8)."""

    format: str
    body: str


class Attestation(msgspec.Struct, frozen=True):
    """`POST attest`: decoded, nothing of it verified.

    primary_evidence: JSON for the TEE that the Request named.
    additional_evidence: the text as sent, which the primary evidence binds; `""` without devices.
    additional: its content, sorted by TEE name.
    """

    nonce: str
    tee_key: TeeKey
    init_data: InitDataDocument | None
    primary_evidence: Json
    additional_evidence: str
    additional: tuple[tuple[Tee, Json], ...]


def decode_request(body: bytes, enabled: frozenset[Tee], spoken: Collection[ProtocolVersion] = SPOKEN) -> Request:
    """Decode a Request.

    Raises:
        PayloadTooLarge: beyond the decoder's size limit.
        UnsupportedVersion: a version that is not in `spoken`.
        TeeNotEnabled: a TEE that nobody knows, or that is not in `enabled`.
        MalformedMessage: anything else.
    """
    message = _object(strict_json.decode(body), "Request")
    version = negotiate(_text(message, "version", "Request"), spoken)
    tee = TEES.get(_text(message, "tee", "Request"))
    if tee is None:
        raise TeeNotEnabled("Request: unknown TEE")
    require_enabled((tee,), enabled)
    if "extra-params" not in message:
        raise MalformedMessage("Request: extra-params is missing")
    return Request(version, tee, message["extra-params"])


def require_enabled(tees: Iterable[Tee], enabled: frozenset[Tee]) -> None:
    """Refuse evidence for TEEs that the settings do not name.

    Raises:
        TeeNotEnabled: names the first one.
    """
    for tee in tees:
        if tee not in enabled:
            raise TeeNotEnabled(f"the TEE {tee} is not enabled here")


def challenge_extra_params(tee: Tee, extra_params: Json) -> Json:
    """What the Challenge says about hash algorithms: nothing (`""`) but to `se` guests that ask.

    Raises:
        MalformedMessage: `se` offers algorithms in no array, or not the one it needs.
    """
    if tee is not Tee.SE or not isinstance(extra_params, dict) or "supported-hash-algorithms" not in extra_params:
        return ""
    offered = extra_params["supported-hash-algorithms"]
    if not isinstance(offered, list):
        raise MalformedMessage("Request: supported-hash-algorithms is not an array")
    selected = hash_for(tee).value
    if not any(isinstance(name, str) and name.lower() == selected for name in offered):
        raise MalformedMessage(f"Request: supported-hash-algorithms lacks {selected}, which this TEE needs")
    return {"selected-hash-algorithm": selected}


def new_nonce(random: Callable[[int], bytes]) -> str:
    """A fresh nonce: base64, with padding, of 32 octets out of a cryptographic source."""
    return base64.b64encode(random(_NONCE_SIZE)).decode("ascii")


def decode_attestation(body: bytes, limits: strict_json.Limits = strict_json.DEFAULT) -> Attestation:
    """Decode an Attestation of protocol 0.4.0. Whether its TEEs are enabled is for `require_enabled`.

    Args:
        limits: for the body, and once more for the JSON within it.

    Raises:
        PayloadTooLarge: beyond the decoder's size limit.
        UnsupportedVersion: the form of an older version.
        MalformedMessage: anything else, the TEE key, the init-data format and names of additional TEEs included.
    """
    message = _object(strict_json.decode(body, limits=limits), "Attestation")
    runtime_data = message.get("runtime-data")
    if runtime_data is None and "tee-pubkey" in message:
        raise UnsupportedVersion("Attestation: of a protocol before 0.4.0, which the challenge was not asked for with")
    runtime_data = _object(runtime_data, "runtime-data")
    evidence = _object(message.get("tee-evidence"), "tee-evidence")
    if "primary_evidence" not in evidence:
        raise MalformedMessage("tee-evidence: primary_evidence is missing")
    additional_evidence = _text(evidence, "additional_evidence", "tee-evidence")
    return Attestation(
        nonce=_text(runtime_data, "nonce", "runtime-data"),
        tee_key=parse_tee_key(runtime_data.get("tee-pubkey")),
        init_data=_init_data(message.get("init-data")),
        primary_evidence=evidence["primary_evidence"],
        additional_evidence=additional_evidence,
        additional=_additional(additional_evidence, limits),
    )


def encode_token_answer(token: str) -> bytes:
    """The answer to an Attestation that was accepted."""
    return strict_json.encode({"token": token})


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise MalformedMessage(f"{what} is missing or not an object")
    return value


def _text(message: dict[str, Json], name: str, what: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise MalformedMessage(f"{what}: {name} is missing or not a string")
    return value


def _init_data(value: Json) -> InitDataDocument | None:
    if value is None:
        return None
    document = _object(value, "init-data")
    if _text(document, "format", "init-data") != "toml":
        raise MalformedMessage("init-data: the format is not toml")
    return InitDataDocument("toml", _text(document, "body", "init-data"))


def _additional(text: str, limits: strict_json.Limits) -> tuple[tuple[Tee, Json], ...]:
    """The devices in `additional_evidence`, which is JSON within JSON and has limits of its own."""
    if not text:
        return ()
    devices: dict[Tee, Json] = {}
    for name, evidence in _object(strict_json.decode(text.encode(), limits=limits), "additional_evidence").items():
        tee = TEES.get(name)
        if tee is None:
            raise MalformedMessage("additional_evidence: unknown TEE")
        if tee in devices:  # under its alias
            raise MalformedMessage("additional_evidence: a TEE occurs twice")
        devices[tee] = evidence
    return tuple(sorted(devices.items()))
