"""Decides whether an attestation token is to be believed, and takes the TEE key out of it.

Source: KBS protocol (attestation token on resource requests); RFC 7519 section 7.2;
threat-model P-JOSE-1 to 4, P-REL-2.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from kbs import strict_json
from kbs.attestation.ear import find
from kbs.clock import Clock
from kbs.errors import PeerFault, TokenRejected
from kbs.protocol.tee_key import TeeKey, parse_tee_key
from kbs.tokens.chain import verify_endorsement
from kbs.tokens.issuer import IssuedToken
from kbs.tokens.jose import MAX_ATTESTATION_TOKEN, CompactJws, PublicKey, split, verify
from kbs.tokens.jwk import parse_public_jwk
from kbs.tokens.times import Window, read_window
from kbs.tokens.trust import Trust, TrustedIssuer

_TYPES: Final = frozenset({None, "jwt", "eat+jwt"})  # eat+jwt: RFC 9782
_MAX_JTI: Final = 256  # characters
_DEPTH: Final = 96  # evidence may be 64 deep, and the token wraps it
_CACHE_OCTETS: Final = 8 << 20  # of token texts and claims JSON; decoded claims take a few times that


@dataclass(frozen=True, slots=True)
class AcceptedToken:
    """A token that was verified, is within its time, and names the key that answers are sealed to.

    claims: shared between requests; not to be changed. claims_json: the claims as signed, UTF-8, for policy input.
    tee_key: the one at the place configured for this issuer. attestation: `jti`, when the issuer gave one.
    """

    claims: Mapping[str, Any] = field(repr=False)
    claims_json: bytes = field(repr=False)
    tee_key: TeeKey
    issuer: str
    expires: datetime
    attestation: str | None


class _KeyLife(NamedTuple):
    """Seconds since the epoch between which the key itself is trusted, both included."""

    since: float
    until: float


_ALWAYS: Final = _KeyLife(0.0, math.inf)


class _Signed(NamedTuple):
    """A payload whose signature holds. parsed: a TEE key read before, of use if it is the one in the claims."""

    issuer: TrustedIssuer
    claims: Mapping[str, Any]
    claims_json: bytes
    key_life: _KeyLife
    parsed: TeeKey | None = None


class _Judged(NamedTuple):
    """What the cache keeps: the outcome, and when it may be repeated without looking again."""

    token: AcceptedToken
    window: Window


class TokenAcceptor:
    """Accepts tokens of our own and of configured issuers. Safe from several threads.

    Tokens found good are kept by their whole text; their time is looked at on every use, and a change of
    trust forgets them all.
    """

    def __init__(
        self, trust: Trust, clock: Clock, *, cache_size: int = 1024, max_token: int = MAX_ATTESTATION_TOKEN
    ) -> None:
        self._clock = clock
        self._cache_size = cache_size
        self._max_token = max_token
        self._state = _State(trust, cache_size)

    def trust_changed(self, trust: Trust) -> None:
        """Use other keys and issuers from now on, and forget what was verified with the former ones."""
        self._state = _State(trust, self._cache_size)

    def remember(self, issued: IssuedToken, tee_key: TeeKey | None = None) -> None:
        """Spare the next `accept` the signature and the decoding of a token this process has just signed itself.

        Args:
            tee_key: the key that the handshake read already; taken only if the claims hold that very key.
        """
        state = self._state
        key = state.trust.own.keys.get(issued.kid)
        if key is not None:
            signed = _Signed(state.trust.own, issued.claims, issued.claims_json, _ALWAYS, tee_key)
            state.keep(issued.text, signed)

    def accept(self, text: str) -> AcceptedToken:
        """Verify a token, or recognise one that was verified before.

        1. shape, size and header; 2. signature, by a key this side trusts for that algorithm; 3. only then the claims:
        `iss` is that key's issuer, `exp`, `iat`, `nbf`; 4. the TEE key, at the issuer's own place.

        Raises:
            TokenRejected: any of these fails. Nothing else.
        """
        state = self._state  # one reading: trust and cache belong together
        if len(text) > self._max_token or not text.isascii():
            raise TokenRejected("token is not a compact JWS")
        now = self._clock().timestamp()
        known = state.find(text)
        if isinstance(known, _Judged) and known.window.is_open(now):
            return known.token
        if isinstance(known, _Signed):
            judged = _judge(known, now)
        else:
            judged = _judge(_verify_signature(state.trust, split(text, limit=self._max_token), now), now)
        state.keep(text, judged)
        return judged.token


def _verify_signature(trust: Trust, jws: CompactJws, now: float) -> _Signed:
    """Find a trusted key under which the signature holds, then decode the payload.

    Two issuers may use the same `kid`, or even the same key; `iss` then says whose token it is.
    """
    if jws.typ not in _TYPES:
        raise TokenRejected("token is of another type")
    if jws.kid is not None and jws.kid in trust.own.keys:  # ours, whatever else the header holds
        issuers: tuple[TrustedIssuer, ...] = (trust.own,)
        by_kid = True
    else:
        issuers, by_kid = trust.foreign, "jwk" not in jws.header
    refusal = TokenRejected("token is signed by no trusted key")
    for issuer in issuers:
        try:
            life = _verify_with(issuer, jws, now, by_kid=by_kid)
            claims = _decode_claims(jws.payload)
            if claims.get("iss") != issuer.name:
                raise TokenRejected("token is of another issuer")
        except TokenRejected as err:
            refusal = err
            continue
        return _Signed(issuer, claims, jws.payload, life)
    raise refusal


def _verify_with(issuer: TrustedIssuer, jws: CompactJws, now: float, *, by_kid: bool) -> _KeyLife:
    """Check the signature with this issuer's key; returns how long that key may be used."""
    key, alg, life = _key_by_kid(issuer, jws.kid) if by_kid else _key_in_header(issuer, jws.header["jwk"], now)
    if alg != jws.alg or alg not in issuer.algorithms:
        raise TokenRejected("token algorithm is not accepted from this issuer")
    verify(jws, key)
    return life


def _key_by_kid(issuer: TrustedIssuer, kid: str | None) -> tuple[PublicKey, str, _KeyLife]:
    trusted = None if kid is None else issuer.keys.get(kid)
    if trusted is None:
        raise TokenRejected("token is signed by no trusted key")
    return trusted.key, trusted.alg, _ALWAYS


def _key_in_header(issuer: TrustedIssuer, jwk: Any, now: float) -> tuple[PublicKey, Any, _KeyLife]:
    if not isinstance(jwk, dict):
        raise TokenRejected("token header member `jwk` is not an object")
    if issuer.insecure_header_jwk:
        try:
            return parse_public_jwk(jwk), jwk.get("alg"), _ALWAYS
        except ValueError:
            raise TokenRejected("token header key is not accepted") from None
    if issuer.store is None:
        raise TokenRejected("token brings a key that is not trusted")
    endorsed = verify_endorsement(jwk, issuer.store, datetime.fromtimestamp(now, UTC))
    life = _KeyLife(endorsed.not_before.timestamp(), endorsed.not_after.timestamp())
    return endorsed.key, jwk.get("alg"), life


def _decode_claims(payload: bytes) -> Mapping[str, Any]:
    limits = strict_json.Limits(size=MAX_ATTESTATION_TOKEN, depth=_DEPTH)
    try:
        claims = strict_json.decode(payload, limits=limits)
    except PeerFault:
        raise TokenRejected("token claims do not decode") from None
    if not isinstance(claims, dict):
        raise TokenRejected("token claims are not an object")
    return claims


def _judge(signed: _Signed, now: float) -> _Judged:
    """Steps 3 and 4: time and TEE key of a payload whose signature and issuer hold."""
    since, until = signed.key_life
    if now > until:
        raise TokenRejected("token is signed by a key that is no longer trusted")
    claims = signed.claims
    window = read_window(claims, now, signed.issuer.max_life)
    attestation = claims.get("jti")
    if "jti" in claims and not (isinstance(attestation, str) and 0 < len(attestation) <= _MAX_JTI):
        raise TokenRejected("token claim `jti` is not a short text")
    token = AcceptedToken(
        claims=claims,
        claims_json=signed.claims_json,
        tee_key=_tee_key(signed.issuer, claims, signed.parsed),
        issuer=signed.issuer.name,
        expires=datetime.fromtimestamp(window.expires, UTC),
        attestation=attestation,
    )
    return _Judged(token, Window(max(window.starts, since), min(window.ends, until), window.expires))


def _tee_key(issuer: TrustedIssuer, claims: Mapping[str, Any], parsed: TeeKey | None) -> TeeKey:
    found = [key for pointer in issuer.tee_key_pointers if (key := find(claims, pointer)) is not None]
    if len(found) != 1:  # of two keys, one might not have been attested
        raise TokenRejected("token holds no TEE key" if not found else "token holds several TEE keys")
    if parsed is not None and found[0] == parsed.members:
        return parsed
    try:
        return parse_tee_key(found[0])
    except PeerFault:
        raise TokenRejected("token holds a TEE key that is not accepted") from None


class _State:
    """One trust and the tokens verified under it. Bounded by number and by octets; the oldest leave first."""

    def __init__(self, trust: Trust, size: int) -> None:
        self.trust = trust
        self._size = size
        self._octets = 0
        self._entries: dict[str, _Judged | _Signed] = {}
        self._lock = threading.Lock()

    def find(self, text: str) -> _Judged | _Signed | None:
        return self._entries.get(text)

    def keep(self, text: str, entry: _Judged | _Signed) -> None:
        with self._lock:
            if text not in self._entries:
                self._octets += _octets(text, entry)
            self._entries[text] = entry
            while len(self._entries) > self._size or self._octets > _CACHE_OCTETS:
                oldest = next(iter(self._entries))
                self._octets -= _octets(oldest, self._entries.pop(oldest))


def _octets(text: str, entry: _Judged | _Signed) -> int:
    return len(text) + len(entry.token.claims_json if isinstance(entry, _Judged) else entry.claims_json)
