"""Signs attestation results: claims in, compact JWS out. Knows nothing of what the claims mean.

Source: KBS protocol (token of the attestation service), attestation-service 3.1 to 3.3; RFC 7515.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from kbs import strict_json
from kbs.clock import Clock
from kbs.errors import ConfigInvalid, PayloadTooLarge, ServerFault
from kbs.lockstep import Steps, alone
from kbs.protocol import base64url
from kbs.tokens.jose import MAX_ATTESTATION_TOKEN, sign_es256
from kbs.tokens.keys import KeyRing, SigningKey
from kbs.tokens.trust import DEFAULT_ISSUER

_SIGNATURE_TEXT: Final = 1 + 86  # octets of `.` and 64 octets in base64url


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """name: `iss`, the configured public address when there is one. max_token: octets, what acceptors take."""

    name: str = DEFAULT_ISSUER
    max_token: int = MAX_ATTESTATION_TOKEN


class IssuedToken(msgspec.Struct, frozen=True):
    """A token we signed ourselves. Only `TokenIssuer` makes one.

    claims_json: the claims as signed, UTF-8. expires: aware, UTC. kid: the key it was signed with.
    """

    text: str
    claims: Mapping[str, Any]
    claims_json: bytes
    expires: datetime
    kid: str

    def __repr__(self) -> str:
        """Without the token and what it says."""
        return f"IssuedToken(expires={self.expires!r}, kid={self.kid!r})"


class TokenIssuer:
    """Signs with the first key of a ring. Safe from several threads.

    The header is exactly `alg`, `typ`, `kid`, and with a signer chain `jwk` holding `x5c`: the reference refuses a
    token whose `jwk` nobody endorses, even when it knows the `kid`.
    """

    def __init__(self, keys: KeyRing, settings: IssuerSettings, clock: Clock) -> None:
        key = keys.signing.private
        if keys.signing.alg != "ES256" or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigInvalid("attestation tokens are signed with ES256")
        self._key = key
        self._kid = keys.signing.kid
        self._settings = settings
        self._clock = clock
        self._header = base64url.encode(_header(keys.signing)) + b"."

    def issue(self, claims: Mapping[str, Any]) -> IssuedToken:
        """Sign a claims set at once; see `issuing`."""
        return alone(self.issuing(claims))

    def issuing(self, claims: Mapping[str, Any], claims_json: bytes | None = None) -> Steps[IssuedToken]:
        """Sign a claims set, in steps: a signature right after others takes half the time.

        Args:
            claims: from `kbs.attestation.ear.ear_claims`, complete: `iat`, `nbf`, `exp` in seconds, `iss`, `jti`.
            claims_json: the very same as JSON, where `kbs.attestation.ear.ear_json` made it.

        Raises:
            PayloadTooLarge: a token that acceptors would refuse for its size.
            ServerFault: claims that are not JSON, of another issuer, or already expired.
        """
        expires = claims.get("exp")
        if type(expires) is not int or expires <= self._clock().timestamp():
            raise ServerFault("attestation token: `exp` is not a future time")
        if claims.get("iss") != self._settings.name or not isinstance(claims.get("jti"), str):
            raise ServerFault("attestation token: claims are not from this issuer")
        if claims_json is None:
            claims_json = strict_json.encode(claims)
        signing_input = self._header + base64url.encode(claims_json)
        size = len(signing_input) + _SIGNATURE_TEXT
        if size > self._settings.max_token:
            raise PayloadTooLarge(
                "attestation token over the size limit",
                operator_detail=f"{size} octets, limit {self._settings.max_token}; see the setting verbose_token",
            )
        yield
        signature = sign_es256(self._key, signing_input)
        yield
        text = (signing_input + b"." + base64url.encode(signature)).decode("ascii")
        return IssuedToken(text, claims, claims_json, datetime.fromtimestamp(expires, UTC), self._kid)


def _header(key: SigningKey) -> bytes:
    header: dict[str, Any] = {"alg": key.alg, "typ": "JWT", "kid": key.kid}
    if key.x5c:
        header["jwk"] = key.jwk()
    return strict_json.encode(header)
