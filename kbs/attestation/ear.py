"""Attestation Result ⇄ EAR claims set, in the dotted profile that the field speaks today.

Source: draft-fv-rats-ear; attestation-service 3.3 and 3.4. Signing is not done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs import strict_json
from kbs.attestation.model import Appraisal, AttestationResult, Json, Tier
from kbs.errors import PolicyBroken, TokenRejected

STATUS: Final = "ear.status"
VECTOR: Final = "ear.trustworthiness-vector"
POLICY_ID: Final = "ear.appraisal-policy-id"
ANNOTATED_EVIDENCE: Final = "ear.veraison.annotated-evidence"

_RESERVED: Final = frozenset({STATUS, VECTOR, POLICY_ID, ANNOTATED_EVIDENCE})

TEE_KEY_POINTER: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/runtime_data_claims/tee-pubkey"
NONCE_POINTER: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/runtime_data_claims/nonce"
DEVICE_EVIDENCE_POINTER: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/runtime_data_claims/additional-evidence"
PROTOCOL_POINTER: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/protocol_version"
INIT_DATA_CLAIMS_POINTER: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/init_data_claims"

TEE_KEY_POINTERS: Final = (
    "/tdx/attester_runtime_data/tee-pubkey",
    "/tdx/attester_user_data/tee-pubkey",
    "/customized_claims/runtime_data/tee-pubkey",
    TEE_KEY_POINTER,
    "/tee-pubkey",
)
"""Where issuers put the TEE key, in the order relying parties look (attestation-service 3.4)."""


@dataclass(frozen=True, slots=True)
class EarSettings:
    """What a deployment may rename; the defaults are the constants of the reference implementation."""

    eat_profile: str = "tag:github.com,2024:confidential-containers/Trustee"
    developer: str = "https://confidentialcontainers.org"
    build: str = "attestation-service 0.1.0"


def ear_claims(
    result: AttestationResult, settings: EarSettings, *, issued_at: int, expires: int, issuer: str, token_id: str
) -> dict[str, Json]:
    """Write a result as the claims set of an EAR JWT. Members keep the order of the reference; `nbf`, `jti` follow.

    Args:
        issued_at, expires: seconds since the epoch; the first is `nbf` too.
        issuer: `iss`, the configured public address or the reference's constant.
        token_id: `jti`.

    Raises:
        PolicyBroken: an extension that would overwrite a standard member.
    """
    return {
        "eat_profile": settings.eat_profile,
        "iat": issued_at,
        "ear.verifier-id": {"developer": settings.developer, "build": settings.build},
        "submods": {appraisal.submod: _submodule(appraisal) for appraisal in result.appraisals},
        "exp": expires,
        "iss": issuer,
        "nbf": issued_at,
        "jti": token_id,
    }


def ear_json(claims: Mapping[str, Json], result: AttestationResult) -> bytes:
    """`claims`, which `ear_claims` made of this result, as JSON; annotated evidence as it was encoded before."""
    submods = {
        each.submod: {**claims["submods"][each.submod], ANNOTATED_EVIDENCE: strict_json.Encoded(each.annotated_json)}
        for each in result.appraisals
    }
    return strict_json.encode_around({**claims, "submods": submods})


def _submodule(appraisal: Appraisal) -> dict[str, Json]:
    if not _RESERVED.isdisjoint(appraisal.extensions):
        raise PolicyBroken("the policy names an extension after a standard member of the token")
    return {
        STATUS: str(appraisal.status),
        VECTOR: appraisal.vector,
        POLICY_ID: appraisal.policy_id,
        ANNOTATED_EVIDENCE: appraisal.annotated_evidence,
        **appraisal.extensions,
    }


def find(claims: Json, pointer: str) -> Json | None:
    """The value at a JSON pointer (RFC 6901), or None if there is none (or null stands there).

    Raises:
        ValueError: not a pointer.
    """
    if pointer == "":
        return claims
    if not pointer.startswith("/"):
        raise ValueError("a JSON pointer starts with `/`")
    value = claims
    for token in pointer[1:].split("/"):
        name = token.replace("~1", "/").replace("~0", "~")
        if type(value) is dict or isinstance(value, Mapping):  # asking for the protocol takes ten times as long
            value = value.get(name)
        elif isinstance(value, list) and name.isascii() and name.isdigit() and (name == "0" or name[0] != "0"):
            index = int(name) if len(name) < 10 else len(value)
            value = value[index] if index < len(value) else None
        else:
            return None
    return value


def tee_key(claims: Mapping[str, Json], pointers: Iterable[str] = ()) -> Mapping[str, Json]:
    """The TEE public key (JWK, unchecked) of a *verified* token.

    Args:
        claims: the token's claims set.
        pointers: configured ones, tried before `TEE_KEY_POINTERS`.

    Raises:
        TokenRejected: no object at any of the places.
    """
    for pointer in (*pointers, *TEE_KEY_POINTERS):
        value = find(claims, pointer)
        if isinstance(value, Mapping):
            return value
    raise TokenRejected("the token holds no TEE key")


def statuses(claims: Mapping[str, Json]) -> dict[str, Tier]:
    """`ear.status` of every submodule of a *verified* token.

    Raises:
        TokenRejected: no submodules, or a status that is none of the four.
    """
    submods: Any = claims.get("submods")
    if not isinstance(submods, Mapping) or not submods:
        raise TokenRejected("the token holds no submodules")
    try:
        return {name: Tier(submod[STATUS]) for name, submod in submods.items()}
    except (KeyError, TypeError, ValueError):
        raise TokenRejected("a submodule of the token has no valid status") from None
