"""Who an administrator is: own admin tokens, and those of configured identity providers.

Texts of refusals are those of the reference, because its clients and tests look for them; which check failed goes to
the operator only. Source: KBS protocol (administration, error envelope); threat-model P-JOSE-1 to 4, P-ADM-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs import strict_json
from kbs.admin.admin_tokens import NAME, TOKEN_TYPE, AdminTokenSettings
from kbs.admin.authorization import EVERY_PERMISSION, Admin, Grant, Roles, Scope
from kbs.clock import Clock
from kbs.errors import AdminForbidden, AdminUnauthenticated, ConfigInvalid, PeerFault, TokenRejected
from kbs.tokens.jose import ALGORITHMS, MAX_ADMIN_TOKEN, CompactJws, PublicKey, algorithms_of, split, verify
from kbs.tokens.times import Window, read_window
from kbs.tokens.trust import TrustedKey

NO_BEARER: Final = "Failed to parse HTTP Auth Bearer header"
NO_ISSUER: Final = "Admin access denied: Cannot verify token with any of the issuers"
DENY_ALL: Final = "Admin access denied: Admin access denied as DenyAll authorization_mode is enabled"
NO_ROLE: Final = (
    "Admin access denied: Failed to parse claims from token: "
    'AdminAccessDenied { reason: "Missing required `role` claim in JWT" }'
)

_SCHEME: Final = "Bearer "
_PROVIDER_TYPES: Final = frozenset({None, "jwt", "at+jwt"})  # at+jwt: RFC 9068
_MAX_TEXT: Final = 256  # characters of a provider's subject or token id


class AdminMode(StrEnum):
    """Whether administration is open, to whom. The reference's names: AuthenticatedAuthorization, DenyAll,
    InsecureAllowAll."""

    AUTHENTICATED = "authenticated"
    DENY_ALL = "deny-all"
    INSECURE_ALLOW_ALL = "insecure-allow-all"


class RevocationList(Protocol):
    """Which token ids were revoked. Raises `StorageUnavailable` when it cannot tell."""

    def is_revoked(self, token_id: str) -> bool:
        """Whether this `jti` was revoked; seen by every worker within 5 s (P-ADM-1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTokens:
    """Our own admin tokens: the keys they are signed with by `kid`, and what their roles may do."""

    keys: Mapping[str, TrustedKey]
    settings: AdminTokenSettings
    roles: Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """An external issuer of admin tokens.

    issuer, audience: None: not compared. keys: its JWK set, by `kid`. public_keys: keys without a `kid`, from PEM.
    algorithms: what it may sign with. max_life: longest `exp` - `iat`, without `iat` longest time left.
    roles: what its roles may do; with the reference's path rules as `acls`.
    """

    issuer: str | None
    audience: str | None
    keys: Mapping[str, TrustedKey] = field(default_factory=dict)
    public_keys: tuple[PublicKey, ...] = ()
    algorithms: frozenset[str] = frozenset({"ES256", "ES384", "EdDSA", "RS256", "PS256"})
    max_life: timedelta = timedelta(hours=24)
    roles: Roles

    def __post_init__(self) -> None:
        if not self.keys and not self.public_keys:
            raise ConfigInvalid("admin identity provider: needs a public key or a JWK set")
        if not self.algorithms or not self.algorithms <= ALGORITHMS.keys():
            raise ConfigInvalid(f"admin identity provider: algorithms must be some of {', '.join(ALGORITHMS)}")


def parse_public_key(pem: bytes) -> PublicKey:
    """Read an identity provider's public key: RSA of 2048 bits or more, P-256, P-384 or Ed25519.

    Raises:
        ConfigInvalid: anything else.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigInvalid("admin identity provider: no PEM public key") from None
    if not isinstance(key, PublicKey) or not algorithms_of(key):
        raise ConfigInvalid("admin identity provider: a key of a type or size not accepted")
    return key


class AdminAuthenticator:
    """Turns an `Authorization` header into an `Admin`. Safe from several threads.

    Args:
        own: None: own tokens are not accepted.
        providers: tried in order after our own.
    """

    def __init__(
        self,
        mode: AdminMode,
        own: OwnTokens | None,
        providers: Sequence[IdentityProvider],
        revocations: RevocationList,
        clock: Clock,
    ) -> None:
        if mode is AdminMode.AUTHENTICATED and own is None and not providers:
            raise ConfigInvalid("admin: authenticated mode needs an admin key or an identity provider")
        self._mode = mode
        self._own = own
        self._providers = tuple(providers)
        self._revocations = revocations
        self._clock = clock

    def authenticate(self, authorization: str | None) -> Admin:
        """Verify the credential.

        Args:
            authorization: value of the one `Authorization` header, or None.

        Raises:
            AdminUnauthenticated: no Bearer token, or one that nobody we trust has issued for now and for us.
            AdminForbidden: administration is switched off.
            StorageUnavailable: the list of revoked tokens cannot be read.
        """
        if self._mode is AdminMode.DENY_ALL:
            raise AdminForbidden(DENY_ALL)
        if self._mode is AdminMode.INSECURE_ALLOW_ALL:
            return Admin("anonymous", "admin", "", str(self._mode), Grant(EVERY_PERMISSION, None))
        text = _bearer(authorization)
        try:
            jws = split(text, limit=MAX_ADMIN_TOKEN)
        except TokenRejected as err:
            raise _refusal(str(err)) from None
        admin = self._verify(jws)
        if admin.token_id and self._revocations.is_revoked(admin.token_id):
            raise _refusal("the token is revoked")
        return admin

    def _verify(self, jws: CompactJws) -> Admin:
        now = self._clock().timestamp()
        if self._own is not None and jws.kid is not None:
            trusted = self._own.keys.get(jws.kid)
            if trusted is not None:
                try:
                    return _verify_own(self._own, trusted, jws, now)
                except TokenRejected as err:
                    raise _refusal(f"own token: {err}") from None
        reasons = []
        for provider in self._providers:
            try:
                return _verify_foreign(provider, jws, now)
            except TokenRejected as err:
                reasons.append(f"{provider.issuer or 'provider'}: {err}")
        raise _refusal("; ".join(reasons) or "the token names no key of ours")


def _refusal(operator_detail: str) -> AdminUnauthenticated:
    return AdminUnauthenticated(NO_ISSUER, operator_detail=operator_detail)


def _bearer(authorization: str | None) -> str:
    """The token of `Bearer <token>`: exact scheme, one space (KBS protocol 5.1)."""
    if authorization is None or not authorization.startswith(_SCHEME):
        raise AdminUnauthenticated(NO_BEARER)
    text = authorization.removeprefix(_SCHEME)
    if not text or not text.isascii() or any(character.isspace() for character in text):
        raise AdminUnauthenticated(NO_BEARER)
    return text


def _verify_own(own: OwnTokens, trusted: TrustedKey, jws: CompactJws, now: float) -> Admin:
    """1. type, algorithm and signature; 2. time; 3. issuer and audience; 4. the claims every token of ours has."""
    settings = own.settings
    if jws.typ != TOKEN_TYPE or jws.alg != trusted.alg:  # 1
        raise TokenRejected("token is of another type")
    verify(jws, trusted.key)
    claims = _claims(jws.payload)
    window = read_window(claims, now, settings.max_life)  # 2
    if claims.get("iss") != settings.name or claims.get("aud") != settings.audience:  # 3
        raise TokenRejected("token is of another issuer, or for another audience")
    subject, role, token_id = (_text(claims, name) for name in ("sub", "role", "jti"))  # 4
    if not NAME.fullmatch(subject) or not NAME.fullmatch(role) or not token_id:
        raise TokenRejected("token claim `sub`, `role` or `jti` is not accepted")
    return Admin(subject, role, token_id, settings.name, own.roles.grant(role), _scope(claims), _expiry(window))


def _verify_foreign(provider: IdentityProvider, jws: CompactJws, now: float) -> Admin:
    """1. type and signature; 2. issuer and audience where configured; 3. time; 4. one role.

    Raises:
        TokenRejected: 1 to 3; the next provider is tried.
        AdminUnauthenticated: 4; no other is tried.
    """
    if jws.typ not in _PROVIDER_TYPES:  # 1
        raise TokenRejected("token is of another type")
    verify(jws, _provider_key(provider, jws))
    claims = _claims(jws.payload)
    if provider.issuer is not None and claims.get("iss") != provider.issuer:  # 2
        raise TokenRejected("token is of another issuer")
    if provider.audience is not None and provider.audience not in _audiences(claims.get("aud")):
        raise TokenRejected("token is for another audience")
    window = read_window(claims, now, provider.max_life, needs_iat=False)  # 3
    role = claims.get("role")  # 4
    if not isinstance(role, str) or not NAME.fullmatch(role):
        raise AdminUnauthenticated(NO_ROLE)
    return Admin(
        _text(claims, "sub"),
        role,
        _text(claims, "jti"),
        _text(claims, "iss"),
        provider.roles.grant(role),
        expires=_expiry(window),
    )


def _provider_key(provider: IdentityProvider, jws: CompactJws) -> PublicKey:
    """The JWK that `kid` names, else a PEM key that suits the algorithm. Keys in the header are never looked at."""
    if jws.alg not in provider.algorithms:
        raise TokenRejected("token algorithm is not accepted from this provider")
    trusted = provider.keys.get(jws.kid) if jws.kid is not None else None
    if trusted is not None and trusted.alg == jws.alg:
        return trusted.key
    for key in provider.public_keys:
        if jws.alg in algorithms_of(key):
            return key
    raise TokenRejected("token is signed by no trusted key")


def _claims(payload: bytes) -> Mapping[str, Any]:
    try:
        claims = strict_json.decode(payload)
    except PeerFault:
        raise TokenRejected("token claims do not decode") from None
    if not isinstance(claims, dict):
        raise TokenRejected("token claims are not an object")
    return claims


def _audiences(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, str) else []


def _scope(claims: Mapping[str, Any]) -> Scope | None:
    if "scope" not in claims:
        return None
    try:
        return Scope.parse(claims["scope"])
    except ConfigInvalid:
        raise TokenRejected("token claim `scope` is not accepted") from None


def _text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that providers may leave out; what is there must be a short printable text, for it ends up in records."""
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise TokenRejected(f"token claim `{name}` is not a short text")
    return value


def _expiry(window: Window) -> datetime:
    return datetime.fromtimestamp(window.expires, UTC)
