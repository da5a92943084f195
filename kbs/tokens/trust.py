"""Whose attestation tokens are accepted, and with which keys: settings turned into checked values.

The verifier's side chooses key and algorithm. A token's header only says which of the configured keys to try; a key
it brings along counts for an issuer that has a trust anchor (threat-model P-JOSE-1, P-JOSE-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from kbs import strict_json
from kbs.attestation.ear import TEE_KEY_POINTER
from kbs.errors import ConfigInvalid, PeerFault
from kbs.tokens.chain import TrustStore
from kbs.tokens.jose import ALGORITHMS, PublicKey, algorithms_of
from kbs.tokens.jwk import parse_public_jwk
from kbs.tokens.keys import KeyRing

DEFAULT_ISSUER: Final = "CoCo-Attestation-Service"
"""`iss` without a public address: the reference's constant."""

_USES: Final = (None, "sig")


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key for exactly one algorithm."""

    key: PublicKey
    alg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One issuer of attestation tokens.

    name: what `iss` must be.
    keys: by `kid`. store: trust anchors for tokens with `jwk.x5c`; None: such tokens are refused.
    algorithms: what this issuer may sign with; `ES256` unless said otherwise.
    tee_key_pointers: JSON pointers to the TEE key. One is the rule (P-REL-2); of several, exactly one may be present
        in a token. `kbs.attestation.ear.TEE_KEY_POINTERS` is the reference's list.
    max_life: longest `exp` - `iat`.
    insecure_header_jwk: take any key a token brings along. Whoever can reach the broker can then make tokens.
    """

    name: str
    keys: Mapping[str, TrustedKey] = field(default_factory=dict)
    store: TrustStore | None = None
    algorithms: frozenset[str] = frozenset({"ES256"})
    tee_key_pointers: tuple[str, ...] = (TEE_KEY_POINTER,)
    max_life: timedelta = timedelta(hours=1)
    insecure_header_jwk: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not self.name:
            problems.append("has no name")
        if not self.keys and self.store is None and not self.insecure_header_jwk:
            problems.append("has no trusted verification materials")
        if not self.algorithms or not self.algorithms <= ALGORITHMS.keys():
            problems.append(f"algorithms must be some of {', '.join(ALGORITHMS)}")
        if not self.tee_key_pointers or not all(pointer.startswith("/") for pointer in self.tee_key_pointers):
            problems.append("needs a JSON pointer to the TEE key")
        if self.max_life <= timedelta(0):
            problems.append("needs a positive maximum life")
        if problems:
            raise ConfigInvalid(f"token issuer {self.name!r}: " + "; ".join(problems))


@dataclass(frozen=True, slots=True)
class Trust:
    """Our own tokens, and those of configured issuers. An own name may also be a foreign one: keys tell them apart."""

    own: TrustedIssuer
    foreign: tuple[TrustedIssuer, ...] = ()

    def __post_init__(self) -> None:
        names = [issuer.name for issuer in self.foreign]
        if len(set(names)) != len(names):
            raise ConfigInvalid("token issuers: the same name stands twice")


def own_issuer(ring: KeyRing, *, name: str = DEFAULT_ISSUER, max_life: timedelta = timedelta(hours=1)) -> TrustedIssuer:
    """Trust in our own tokens: every key of the ring, the EAR place of the TEE key."""
    signing = TrustedKey(ring.signing.public, ring.signing.alg)
    others = {key.kid: TrustedKey(key.public, _only_algorithm(key.public)) for key in ring.others}
    keys = {ring.signing.kid: signing, **others}
    return TrustedIssuer(
        name=name, keys=keys, max_life=max_life, algorithms=frozenset(key.alg for key in keys.values())
    )


def _only_algorithm(key: PublicKey) -> str:
    (alg,) = algorithms_of(key)
    return alg


def parse_jwk_set(document: bytes | Mapping[str, Any]) -> dict[str, TrustedKey]:
    """Read a configured JWK set (RFC 7517 section 5): keys by `kid`.

    Keys for encryption, of other types or weak, and those without `kid` or `alg` (which nothing could select) are left
    out, so that one exotic key does not make a provider's whole set unusable.

    Args:
        document: JSON text, or the decoded object.

    Raises:
        ConfigInvalid: not a JWK set, a private or symmetric key in it, the same `kid` twice, or no usable key left.
    """
    try:
        content = strict_json.decode(document) if isinstance(document, bytes) else document
    except PeerFault as err:
        raise ConfigInvalid(f"JWK set: {err}") from None
    listed = content.get("keys") if isinstance(content, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(jwk, Mapping) for jwk in listed):
        raise ConfigInvalid("JWK set: no list of keys")
    keys: dict[str, TrustedKey] = {}
    for jwk in listed:
        if jwk.get("kty") == "oct" or "d" in jwk:
            raise ConfigInvalid("JWK set: holds a private or symmetric key")
        found = _usable(jwk)
        if found is None:
            continue
        kid, key = found
        if kid in keys:
            raise ConfigInvalid("JWK set: the same `kid` stands twice")
        keys[kid] = key
    if not keys:
        raise ConfigInvalid("JWK set: no usable key")
    return keys


def _usable(jwk: Mapping[str, Any]) -> tuple[str, TrustedKey] | None:
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not kid or not isinstance(alg, str) or jwk.get("use") not in _USES:
        return None
    try:
        key = parse_public_jwk(jwk)
    except ValueError:
        return None
    return (kid, TrustedKey(key, alg)) if alg in algorithms_of(key) else None
