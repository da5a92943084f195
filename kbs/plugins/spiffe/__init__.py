"""Plugin `spiffe`: SPIFFE identities for attested workloads, for a short time each; a guest renews by asking again.

    POST spiffe/x509/NAME         body: a certificate signing request; the private key stays in the guest
    GET  spiffe/x509/NAME/key     the broker makes the key (`broker_keys`), sealed to the guest like every answer
    GET  spiffe/jwt/NAME/token    `?audience=…` where more than one is configured
    GET  spiffe/bundle/x509/pem   and bundle/jwks/json: the trust bundle

The bundle is also public, at `/.well-known/spiffe-bundle`. Answers are JSON. Nothing is revoked: lives are short.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kbs import config
from kbs.clock import Clock
from kbs.errors import AccessDenied, ConfigInvalid, MalformedMessage, MethodNotAllowed, ResourceNotFound, ServerFault
from kbs.plugins.model import Access, Guard, Guest, PluginAnswer, PluginContext, PluginRequest
from kbs.plugins.spiffe.authority import (
    Authority,
    GuestKey,
    KeptAuthority,
    authority_from_files,
    new_guest_key,
    requested_key,
)
from kbs.plugins.spiffe.identities import Identity, IdentitySettings, check_trust_domain, identity
from kbs.secret import Secret

BUNDLE_PATH: Final = "/.well-known/spiffe-bundle"
_WHERE: Final = "plugins.options.spiffe"
_GUARDS: Final[Mapping[str, Guard]] = {"GET": Guard(Access.TOKEN), "POST": Guard(Access.TOKEN)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiffeSettings:
    """Options of the plugin."""

    trust_domain: str
    identity: tuple[IdentitySettings, ...]
    ca_certificate: Path | None = None
    ca_key: Path | None = None
    jwt_key: Path | None = None
    x509_lifetime_seconds: int = 3600
    jwt_lifetime_seconds: int = 300
    audiences: tuple[str, ...] = ()
    bundle_refresh_seconds: int = 3600


class SpiffePlugin:
    """Issues identities. Which guests get one under which name the resource policy says."""

    blocks = True  # signing, and making keys, on another thread than the others'

    def __init__(
        self,
        settings: SpiffeSettings,
        identities: Mapping[str, Identity],
        authority: Callable[[], Authority],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._identities = identities
        self._authority = authority
        self._clock = clock

    def guards(self) -> Mapping[str, Guard]:
        """GET and POST for guests."""
        return _GUARDS

    public_path = BUNDLE_PATH

    def public_document(self) -> Mapping[str, Any]:
        """The trust bundle (SPIFFE Federation section 5)."""
        return self._authority().bundle(self._settings.bundle_refresh_seconds)

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one request that policy let through."""
        if request.guest is None:
            raise ServerFault("internal error", operator_detail="spiffe without a guest")
        match (request.method, *request.segments):
            case ("POST", "x509", name):
                return self._x509(self._identity(name), request.guest, requested_key(request.body), None)
            case ("GET", "x509", name, "key"):
                chosen = self._identity(name)
                if not chosen.broker_keys:
                    raise AccessDenied("this identity is for keys of guests: POST a certificate request")
                key, private = new_guest_key()
                return self._x509(chosen, request.guest, key, private)
            case ("GET", "jwt", name, "token"):
                return self._jwt(self._identity(name), request.guest, request.query)
            case ("GET", "bundle", "x509", "pem"):
                return PluginAnswer(Secret(self._authority().bundle_pem().encode("ascii")))
            case ("GET", "bundle", "jwks", "json"):
                return _answer(self.public_document())
            case ("GET", "x509", _):
                raise MethodNotAllowed("POST a certificate request here", allow=("POST",))
        raise ResourceNotFound("spiffe has x509, jwt and bundle")

    def _identity(self, name: str) -> Identity:
        found = self._identities.get(name)
        if found is None:
            raise ResourceNotFound("no such identity")
        return found

    def _x509(self, chosen: Identity, guest: Guest, key: GuestKey, private: str | None) -> PluginAnswer:
        spiffe_id = chosen.spiffe_id(guest.claims)
        authority, now = self._authority(), self._clock()
        if key in (authority.ca_key.public, authority.jwt_key.public):
            raise MalformedMessage("the certificate request is for a key of the authority")
        life = timedelta(seconds=self._settings.x509_lifetime_seconds)
        chain, end = authority.x509_svid(spiffe_id, key, now, life)
        made = {"spiffe_id": spiffe_id, "x509_svid": chain, "bundle": authority.bundle_pem(), **_times(now, end)}
        return _answer(made if private is None else {**made, "x509_svid_key": private})

    def _jwt(self, chosen: Identity, guest: Guest, query: Mapping[str, str]) -> PluginAnswer:
        configured = self._settings.audiences
        audience = query.get("audience") or (configured[0] if len(configured) == 1 else None)
        if audience is None or audience not in configured:
            raise MalformedMessage("audience: expected one of those that the broker's settings name")
        spiffe_id = chosen.spiffe_id(guest.claims)
        now, life = self._clock(), timedelta(seconds=self._settings.jwt_lifetime_seconds)
        token, end = self._authority().jwt_svid(spiffe_id, [audience], now, life)
        return _answer({"spiffe_id": spiffe_id, "jwt_svid": token, **_times(now, end)})


def _times(now: datetime, end: datetime) -> Mapping[str, str]:
    """When it ends, and when to ask for the next: at half of its life."""
    return {"expires_at": end.isoformat(), "renew_at": (now + (end - now) / 2).isoformat()}


def _answer(document: Mapping[str, Any]) -> PluginAnswer:
    return PluginAnswer(Secret(json.dumps(document, separators=(",", ":")).encode("ascii")))


def build(context: PluginContext) -> SpiffePlugin:
    """Entry point `kbs.plugins: spiffe`.

    Raises:
        ConfigInvalid: options, identities, certificates or keys that cannot work.
    """
    settings = config.structure(context.options, SpiffeSettings, _WHERE)
    check_trust_domain(settings.trust_domain, _WHERE)
    names = [each.name for each in settings.identity]
    if not names or len(set(names)) != len(names):
        raise ConfigInvalid(f"settings: {_WHERE}.identity: at least one, each with a name of its own")
    if not 60 <= settings.x509_lifetime_seconds <= 86_400 or not 30 <= settings.jwt_lifetime_seconds <= 3_600:
        raise ConfigInvalid(f"settings: {_WHERE}: x509_lifetime_seconds 60 to 86400, jwt_lifetime_seconds 30 to 3600")
    if not all(settings.audiences) or settings.bundle_refresh_seconds < 60:
        raise ConfigInvalid(f"settings: {_WHERE}: audiences are not empty, bundle_refresh_seconds is at least 60")
    if (settings.ca_certificate is None) != (settings.ca_key is None) or (settings.jwt_key and not settings.ca_key):
        raise ConfigInvalid(f"settings: {_WHERE}: ca_certificate and ca_key go together; jwt_key goes with them")
    identities = {each.name: identity(each, settings.trust_domain, _WHERE) for each in settings.identity}
    kept = KeptAuthority(settings.trust_domain, context.store, context.clock)
    authority = kept.authority
    if settings.ca_certificate is not None and settings.ca_key is not None:
        jwt_key = None if settings.jwt_key is None else context.data / settings.jwt_key
        given = authority_from_files(
            settings.trust_domain,
            context.data / settings.ca_certificate,
            context.data / settings.ca_key,
            jwt_key,
            kept.jwt_key(),
        )

        def authority() -> Authority:
            return given

    return SpiffePlugin(settings, identities, authority, context.clock)
