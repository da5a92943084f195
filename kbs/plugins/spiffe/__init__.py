"""Plugin `spiffe`: SPIFFE identities for attested workloads, for a short time each; a guest renews by asking again.

    POST spiffe/x509/NAME         body: a certificate signing request; the private key stays in the guest
    GET  spiffe/x509/NAME/key     the broker makes the key (`broker_keys`), sealed to the guest like every answer
    GET  spiffe/jwt/NAME/token    `?audience=…` where more than one is configured
    GET  spiffe/bundle/x509/pem   and bundle/jwks/json: the trust bundle
    PUT  spiffe/authority         by administrators: `{"rotate": "with-notice"}` or `"at-once"`

The bundle is also public, at `/.well-known/spiffe-bundle`. Answers are JSON. Nothing is revoked: lives are short.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kbs import config, strict_json
from kbs.clock import Clock
from kbs.errors import (
    AccessDenied,
    ConfigInvalid,
    MalformedMessage,
    MethodNotAllowed,
    NameNotAllowed,
    ResourceNotFound,
    ServerFault,
)
from kbs.plugins.model import Access, Guard, Guest, PluginAnswer, PluginContext, PluginRequest
from kbs.plugins.spiffe.authority import (
    Authority,
    Beside,
    GuestKey,
    authority_from_files,
    beside_from_files,
    new_guest_key,
    requested_key,
)
from kbs.plugins.spiffe.identities import Identity, IdentitySettings, check_trust_domain, identity
from kbs.plugins.spiffe.kept import KeptAuthority, Lives
from kbs.secret import Secret
from kbs.tokens.keys import load_signing_key

Rotate = Callable[[bool], Sequence[Mapping[str, Any]]]
"""Make the next keys, at once or with notice; what there is afterwards, as `Generation.summary`."""

BUNDLE_PATH: Final = "/.well-known/spiffe-bundle"
_WHERE: Final = "plugins.options.spiffe"
_GUARDS: Final[Mapping[str, Guard]] = {
    "GET": Guard(Access.TOKEN),
    "POST": Guard(Access.TOKEN),
    "PUT": Guard(Access.ADMIN, "plugin.admin"),
}
_ROTATIONS: Final = {"with-notice": False, "at-once": True}


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
    rotate_after_days: int | None = None
    old_roots: tuple[Path, ...] = ()
    old_jwt_keys: tuple[Path, ...] = ()


class SpiffePlugin:
    """Issues identities. Which guests get one under which name the resource policy says."""

    blocks = True  # signing, and making keys, on another thread than the others'

    def __init__(
        self,
        settings: SpiffeSettings,
        identities: Mapping[str, Identity],
        authority: Callable[[], Authority],
        rotate: Rotate | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._identities = identities
        self._authority = authority
        self._rotate = rotate
        self._clock = clock

    def guards(self) -> Mapping[str, Guard]:
        """GET and POST for guests, PUT for administrators."""
        return _GUARDS

    public_path = BUNDLE_PATH

    def public_document(self) -> Mapping[str, Any]:
        """The trust bundle (SPIFFE Federation section 5)."""
        return self._authority().bundle(self._settings.bundle_refresh_seconds)

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one request that policy let through, or an administrator's."""
        if request.method == "PUT" and request.guest is None:
            return self._change(request)
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

    def _change(self, request: PluginRequest) -> PluginAnswer:
        if request.segments != ("authority",):
            raise ResourceNotFound("administrators PUT spiffe/authority")
        wanted = strict_json.decode(request.body)
        rotation = wanted.get("rotate") if isinstance(wanted, dict) and len(wanted) == 1 else None
        if not isinstance(rotation, str) or rotation not in _ROTATIONS:
            raise MalformedMessage('expected {"rotate": "with-notice"} or {"rotate": "at-once"}')
        if self._rotate is None:
            raise NameNotAllowed("all keys are the operator's: change the files, and name the old ones in old_roots")
        made = {"generations": list(self._rotate(_ROTATIONS[rotation]))}
        return PluginAnswer(_answer(made).payload, action=f"rotate {rotation}")

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
    if settings.rotate_after_days is not None and (settings.rotate_after_days < 1 or settings.ca_key is not None):
        raise ConfigInvalid(f"settings: {_WHERE}: rotate_after_days is at least 1, and for keys that the broker makes")
    identities = {each.name: identity(each, settings.trust_domain, _WHERE) for each in settings.identity}
    authority, rotate = _authorities(settings, context)
    return SpiffePlugin(settings, identities, authority, rotate, context.clock)


def _authorities(settings: SpiffeSettings, context: PluginContext) -> tuple[Callable[[], Authority], Rotate | None]:
    """Where keys come from, and how they are rotated: None where all are the operator's."""
    x509_life, refresh = settings.x509_lifetime_seconds, settings.bundle_refresh_seconds
    days = settings.rotate_after_days
    lives = Lives(
        svid=timedelta(seconds=max(x509_life, settings.jwt_lifetime_seconds)),
        # one poll of the bundle may fail; guests may know it only from an answer that is as old as their certificate
        notice=timedelta(seconds=max(x509_life, 2 * refresh)),
        ca=None if days is None else timedelta(days=days),
    )
    kept = KeptAuthority(settings.trust_domain, context.store, context.clock, lives)
    roots, jwt_keys = ([context.data / each for each in paths] for paths in (settings.old_roots, settings.old_jwt_keys))
    beside = beside_from_files(roots, jwt_keys)
    if settings.ca_certificate is None or settings.ca_key is None:

        def made() -> Authority:
            found = kept.authority()
            # a number of the store's says nothing of what the settings add
            return replace(found, beside=(*found.beside, *beside), sequence=None) if beside else found

        return made, kept.rotate
    jwt_key = None if settings.jwt_key is None else load_signing_key(context.data / settings.jwt_key)
    certificate, key = context.data / settings.ca_certificate, context.data / settings.ca_key
    given = authority_from_files(settings.trust_domain, certificate, key, jwt_key or kept.authority().jwt_key)
    whole = replace(given, beside=beside)
    if jwt_key is not None:
        return lambda: whole, None

    def mixed() -> Authority:
        found = kept.authority()
        others = (Beside(kid=each.kid, jwk=each.jwk) for each in found.beside)
        return replace(whole, jwt_key=found.jwt_key, beside=(*others, *beside), ends=found.ends)

    return mixed, kept.rotate
