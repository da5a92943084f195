"""Makes admin tokens: compact JWS signed by the admin key, short-lived, with an id, an audience and a scope.

Used by `kbs init`, `kbs admin token` and the route that issues tokens. The text works as it is in the file that the
field's client reads (`Authorization: Bearer <trimmed content>`). Source: decisions, tokens and trust; P-ADM-1.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kbs import strict_json
from kbs.admin.authorization import NOTHING, Admin, Roles, Scope
from kbs.clock import Clock
from kbs.errors import AdminForbidden, ConfigInvalid, NameNotAllowed
from kbs.protocol import base64url
from kbs.tokens.jose import MAX_ADMIN_TOKEN, sign
from kbs.tokens.keys import SigningKey

TOKEN_TYPE: Final = "kbs-admin+jwt"  # noqa: S105 - explicit typing, RFC 8725 section 3.11
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
"""Subjects and roles: one word that is safe in logs and messages."""

_ID_OCTETS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTokenSettings:
    """Our own admin tokens.

    name, audience: `iss` and `aud`, written here and checked on the way back. lifetime: of a token for which nobody
    says otherwise. max_life: longest that is made or accepted.
    """

    name: str = "kbs-admin"
    audience: str = "KBS"
    lifetime: timedelta = timedelta(hours=24)
    max_life: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if not self.name or not self.audience or not timedelta(0) < self.lifetime <= self.max_life:
            raise ConfigInvalid("admin tokens: need a name, an audience, and a lifetime within the maximum")


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new admin token. text is the credential; the rest is for the record. expires: aware, UTC."""

    text: str = field(repr=False)
    token_id: str
    subject: str
    role: str
    expires: datetime


class AdminTokenMint:
    """Signs admin tokens.

    Args:
        key: the admin key, P-256 or Ed25519.
        roles: those a token may be made for.
        random: gives that many octets nobody can guess.
    """

    def __init__(
        self,
        key: SigningKey,
        settings: AdminTokenSettings,
        roles: Roles,
        clock: Clock,
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._key = key
        self._settings = settings
        self._roles = roles
        self._clock = clock
        self._random = random

    def mint(
        self, subject: str, role: str, lifetime: timedelta | None = None, scope: Sequence[str] | None = None
    ) -> MintedToken:
        """Make a token on the authority of whoever holds the admin key.

        Args:
            lifetime: whole seconds; None: the usual one.
            scope: paths or patterns it is narrowed to; None: not narrowed.

        Raises:
            NameNotAllowed: subject or role outside the grammar, a role nobody defined, a scope not accepted, a life
                that is not positive or over the maximum.
        """
        return self._mint(subject, role, lifetime, None if scope is None else _parse(scope))

    def mint_for(
        self,
        by: Admin,
        subject: str,
        role: str,
        lifetime: timedelta | None = None,
        scope: Sequence[str] | None = None,
    ) -> MintedToken:
        """Make a token on the authority of another one, which can hand on no more than it has.

        Args:
            lifetime: None: the usual one, or as long as `by` still lives if that is shorter.

        Raises:
            AdminForbidden: more permissions, a wider scope or a longer life than `by` has: else a stolen token would
                renew itself for ever.
            NameNotAllowed: as `mint`.
        """
        narrowed = None if scope is None else _parse(scope)
        if not by.may_hand_on(self._roles.grant(role), narrowed):
            raise AdminForbidden(f"Admin access denied: Role {by.role} may not hand on more than it has")
        if by.expires is not None:
            left = by.expires - self._clock()
            if lifetime is not None and lifetime > left:
                raise AdminForbidden("Admin access denied: a token may not outlive the one it is made with")
            lifetime = min(left, self._settings.lifetime) if lifetime is None else lifetime
        return self._mint(subject, role, lifetime, narrowed)

    def _mint(self, subject: str, role: str, lifetime: timedelta | None, scope: Scope | None) -> MintedToken:
        if not NAME.fullmatch(subject):
            raise NameNotAllowed("admin token: the subject is not one plain word")
        if not NAME.fullmatch(role) or self._roles.grant(role) is NOTHING:
            raise NameNotAllowed("admin token: there is no such role")
        life = self._settings.lifetime if lifetime is None else lifetime
        if not timedelta(seconds=1) <= life <= self._settings.max_life:
            raise NameNotAllowed("admin token: the lifetime is not positive, or longer than the maximum")
        now = int(self._clock().timestamp())
        expires = now + int(life.total_seconds())
        token_id = self._random(_ID_OCTETS).hex()  # hex, so that none looks like an option on a command line
        claims: dict[str, Any] = {
            "iss": self._settings.name,
            "sub": subject,
            "aud": self._settings.audience,
            "role": role,
            "iat": now,
            "nbf": now,
            "exp": expires,
            "jti": token_id,
        }
        if scope is not None:
            claims["scope"] = list(scope.entries)
        return MintedToken(self._sign(claims), token_id, subject, role, datetime.fromtimestamp(expires, UTC))

    def _sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self._key.alg, "typ": TOKEN_TYPE, "kid": self._key.kid}
        signing_input = b".".join(base64url.encode(strict_json.encode(part)) for part in (header, claims))
        text = (signing_input + b"." + base64url.encode(sign(self._key.private, signing_input))).decode("ascii")
        if len(text) > MAX_ADMIN_TOKEN:
            raise NameNotAllowed("admin token: the scope makes the token too large")
        return text


def _parse(scope: Sequence[str]) -> Scope:
    try:
        return Scope.parse(list(scope))
    except ConfigInvalid as err:
        raise NameNotAllowed(f"admin token: {err}") from None
