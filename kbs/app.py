"""The composition root: settings in, a wired broker out. The only module that names concrete classes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from a2wsgi import WSGIMiddleware
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask

from kbs import __version__, extensions
from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authentication import (
    AdminAuthenticator,
    AdminMode,
    IdentityProvider,
    OwnTokens,
    parse_public_key,
)
from kbs.admin.authorization import Acl, Roles
from kbs.admin.decision_evaluation import DecisionEvaluation
from kbs.admin.init_data import InitDataRegister
from kbs.admin.policy_tools import PolicyTools
from kbs.admin.reference_use import ReferenceUse
from kbs.admin.revocations import Revocations
from kbs.admin.what_if import WhatIf
from kbs.attestation.ear import EarSettings
from kbs.attestation.enabled import enabled_verifiers
from kbs.attestation.endorsements import endorsement_service
from kbs.attestation.references import reference_provider
from kbs.attestation.service import AttestationService
from kbs.audit.gate import GroupCommit
from kbs.audit.log import AuditLog, LogTail
from kbs.audit.model import ORIGIN, Log
from kbs.clock import Clock, system_clock
from kbs.config import KeySettings, PolicySettings, Settings, TrustedIssuerSettings, port_of
from kbs.errors import ConfigInvalid
from kbs.handshake.cookie import CookieSealer
from kbs.handshake.service import Handshakes
from kbs.identity.pod_tokens import PodTokens, open_pod_tokens
from kbs.plugins.model import Plugin, PluginContext, Publishes
from kbs.plugins.resource import ResourcePlugin
from kbs.policy.candidates import Candidates
from kbs.policy.compile import Compiler
from kbs.policy.decisions import DecisionInputs
from kbs.policy.engine import PolicyEngine, PolicyKind
from kbs.policy.scope import Scopes
from kbs.policy.shipped import Shipped
from kbs.policy.store import RESOURCE_POLICY_ID, PolicyStore
from kbs.policy.wasm import WasmEngine, nanoseconds
from kbs.protocol.version import spoken_from
from kbs.release.policies import ResourcePolicies
from kbs.release.service import Release
from kbs.secret import Secret
from kbs.storage.choice import Stores, open_recent, open_stores
from kbs.storage.model import HandshakeStore, KeyValueStore
from kbs.storage.recent import Bounds, MemoryRecentStore
from kbs.storage.sealed import SealedStore, SealingKeys, read_key
from kbs.tokens.acceptor import TokenAcceptor
from kbs.tokens.chain import load_trust_store
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, SigningKey, VerifyingKey, load_signing_key, load_token_key, load_verifying_keys
from kbs.tokens.trust import DEFAULT_ISSUER, Trust, TrustedIssuer, TrustedKey, own_issuer, parse_jwk_set
from kbs.web import administration, guest, public
from kbs.web.administration.candidates import CandidateRoutes
from kbs.web.administration.init_data import InitDataRoutes
from kbs.web.administration.policies import PolicyRoutes
from kbs.web.administration.policy_tools import PolicyToolRoutes
from kbs.web.administration.references import ReferenceRoutes
from kbs.web.administration.resources import ResourceRoutes
from kbs.web.administration.service import ServiceRoutes
from kbs.web.asgi import Asgi, BrokerAsgi
from kbs.web.dispatch import Dispatcher, RouteTable
from kbs.web.exchange import Stations
from kbs.web.flask_app import create_app
from kbs.web.leaving import Leaving
from kbs.web.metrics import Metrics
from kbs.web.model import Listener
from rvps.client import ReferenceValueProvider, RemoteProvider
from rvps.errors import ProviderUnavailable
from rvps.expiry import ExpiryWatch

if TYPE_CHECKING:
    from kbs.policy.opa_link import OpaServerSettings
    from kbs.storage.postgres.database import Database

_WARM = ((PolicyKind.RESOURCE, RESOURCE_POLICY_ID), (PolicyKind.EVIDENCE, "default_cpu"))
_THREADS = 8  # for work that may wait, and for administration


@dataclass(frozen=True, slots=True)
class Broker:
    """One wired broker in one process."""

    settings: Settings
    dispatcher: Dispatcher
    audit: Log
    stores: Stores
    store: KeyValueStore
    handshakes: HandshakeStore
    policies: PolicyStore
    engine: PolicyEngine
    references: ReferenceValueProvider
    metrics: Metrics
    clock: Clock
    inputs: DecisionInputs
    expiry: ExpiryWatch
    pod_tokens: PodTokens

    def flask(self) -> Flask:
        """The whole service as a WSGI application."""
        return create_app(self.dispatcher, self.audit.append, _listeners(self.settings), self.metrics)

    def asgi(self) -> BrokerAsgi:
        """The whole service as an ASGI application: hot routes on the loop, Flask for the rest."""
        waits = self.stores.database is not None  # for another machine: the loop has others to serve meanwhile
        stations = Stations(
            dispatcher=self.dispatcher,
            gate=GroupCommit(
                partial(self.audit.append, defer_head=True),
                together=self.handshakes.together,
                write_head=self.audit.write_head,
                waits=waits,
            ),
            metrics=self.metrics,
            executor=ThreadPoolExecutor(_THREADS, thread_name_prefix="judge"),
            handlers=ThreadPoolExecutor(_THREADS, thread_name_prefix="handle") if waits else None,
        )
        return BrokerAsgi(
            stations=stations,
            fallback=cast(Asgi, WSGIMiddleware(cast(Any, self.flask()), workers=_THREADS)),
            listeners=_listeners(self.settings),
        )

    def warm(self) -> None:
        """Compile what the next request will evaluate, so that no guest waits for it. Cheap when nothing changed.

        Raises:
            KbsError: a policy that cannot be used; whoever asks for it will be told.
        """
        with suppress(ProviderUnavailable):  # guests will be told, and the next round asks again
            self.references.snapshot(self.clock())
        self.expiry.look(self.clock())
        for kind, policy_id in _WARM:
            self.engine.prepare(self.policies.active(kind, policy_id))

    @property
    def audit_tail(self) -> LogTail | None:
        """How far a log in files was read here, for `build`; one in a database is never read as a whole."""
        return self.audit.tail if isinstance(self.audit, AuditLog) else None

    def close(self) -> None:
        """Release files and connections."""
        if isinstance(self.references, RemoteProvider):
            self.references.close()
        self.pod_tokens.close()
        self.inputs.close()
        self.audit.close()
        self.stores.close()


def build(
    data: Path,
    settings: Settings,
    *,
    clock: Clock = system_clock,
    shared_metrics: bool = False,
    leaving: Leaving | None = None,
    audit_tail: LogTail | None = None,
) -> Broker:
    """Wire a broker on a data directory.

    Args:
        leaving: what says that the service ends; None: nothing does.
        audit_tail: of a broker that was wired here before, in this process or the one it was forked from.

    Raises:
        ConfigInvalid: settings that name what does not exist, keys that do not load.
        StorageUnavailable, AuditUnavailable: the data directory cannot be used.
    """
    keys = settings.keys
    sealing = SealingKeys([Secret(read_key(data / keys.sealing))])
    token_key = load_token_key(data / keys.token, _under(data, settings.token.signer_chain))
    admin_key = load_signing_key(data / keys.admin)
    _audit_key(data / keys.audit)  # a key that is missing shows before anything is made
    stores = open_stores(data, settings.storage, sealing)
    audit = open_audit(data, settings, clock=clock, database=stores.database, known=audit_tail)
    store = SealedStore(stores.rules, sealing)
    handshake_store = stores.handshakes
    engine = _engine(settings, clock)
    compiler = _compiler(settings, clock)
    shipped = Shipped.load()
    policies = PolicyStore(
        store,
        compiler,
        shipped,
        policy_set=settings.policy.set,
        scopes=Scopes(settings.policy.tenants),
    )
    candidates = Candidates(store, policies)
    inputs = _decision_inputs(data, settings, sealing, stores, clock)
    references = reference_provider(settings.references, data, store, durable=settings.storage.kind != "memory")
    init_data = InitDataRegister(store, references, clock)
    ring = KeyRing(token_key, _further_token_keys(data, keys, token_key))
    issuer_name = settings.server.public_url or DEFAULT_ISSUER
    token_life = timedelta(seconds=settings.token.lifetime_seconds)
    acceptor = TokenAcceptor(_trust(data, settings, ring, issuer_name, token_life), clock)
    verifiers = enabled_verifiers(data, settings.attestation)
    handshakes = Handshakes(
        cookies=CookieSealer([read_key(data / keys.session)], lambda: handshake_store.epoch, os.urandom),
        store=handshake_store,
        attestation=AttestationService(
            verifiers,
            endorsement_service(settings.endorsements, data, clock),
            engine,
            policies,
            references,
            verbose_token=settings.attestation.verbose_token,
            staged=candidates,
            known=init_data,
        ),
        inputs=inputs,
        issuer=TokenIssuer(ring, IssuerSettings(name=issuer_name), clock),
        acceptor=acceptor,
        enabled=frozenset(verifiers),
        spoken=spoken_from(settings.protocol.minimum_version),
        max_body=settings.server.max_attest_body,
        challenge_ttl=timedelta(seconds=settings.handshake.challenge_ttl_seconds),
        token_life=token_life,
        ear=EarSettings(eat_profile=settings.token.eat_profile, developer=settings.token.developer),
        issuer_name=issuer_name,
        clock=clock,
        random=os.urandom,
    )
    plugins: dict[str, Plugin] = {
        name: factory(
            PluginContext(store, clock, os.urandom, data, settings.plugins.options.get(name, {}), settings.resource)
        )
        for name, factory in extensions.load("kbs.plugins", settings.plugins.enabled).items()
    }
    pod_tokens = open_pod_tokens(data, settings.identity.kubernetes, settings.server.public_url, clock)
    release = Release(
        plugins=plugins,
        acceptor=acceptor,
        policies=ResourcePolicies(policies, engine, candidates, inputs),
        pod_tokens=pod_tokens,
        allow_rsa1_5=settings.compat.allow_rsa1_5,
    )
    metrics = Metrics(__version__, settings.insecure_switches(), shared=shared_metrics)
    revocations = Revocations(store, clock)
    mint = _mint(settings, admin_key, clock)

    def status() -> Mapping[str, Any]:
        return {
            "version": __version__,
            "ready": True,
            "insecure": list(settings.insecure_switches()),
            "tees": sorted(tee.value for tee in verifiers),
            "policy_engine": engine.name,
            "policy_set": settings.policy.set,
            "references": _version(references, clock),
        }

    def ready() -> Mapping[str, Any]:
        if leaving is not None:
            leaving.check()
        store.change_token()
        audit.check()
        return {"ready": True, "insecure": list(settings.insecure_switches())}

    resource = plugins.get("resource")
    table = RouteTable(
        [
            *public.routes(keys=ring, public_url=settings.server.public_url, ready=ready, metrics=metrics),
            *guest.routes(handshakes, release, plugins),
            *(
                public.document_route(plugin.public_path, plugin.public_document)
                for plugin in plugins.values()
                if isinstance(plugin, Publishes)
            ),
            *administration.routes(
                policies=PolicyRoutes(policies, clock),
                candidates=CandidateRoutes(
                    policies, candidates, WhatIf(policies, engine, inputs, references, clock), inputs, clock
                ),
                tools=PolicyToolRoutes(
                    policies,
                    PolicyTools(compiler),
                    engine,
                    DecisionEvaluation(policies, engine, compiler, inputs, references, clock, audit.find),
                ),
                references=ReferenceRoutes(
                    references, ReferenceUse(policies, engine, inputs, references, clock, shipped), clock
                ),
                init_data=InitDataRoutes(init_data, find=audit.find, kept=inputs.of),
                resources=ResourceRoutes(resource) if isinstance(resource, ResourcePlugin) else None,
                plugins=plugins,
                service=ServiceRoutes(find=audit.find, revocations=revocations, mint=mint, status=status),
            ),
        ]
    )
    dispatcher = Dispatcher(
        table=table,
        plugins=plugins,
        authenticator=_authenticator(data, settings, admin_key, revocations, clock),
        record=audit.append,
        server=settings.server,
        random=os.urandom,
    )
    return Broker(
        settings,
        dispatcher,
        audit,
        stores,
        store,
        handshake_store,
        policies,
        engine,
        references,
        metrics,
        clock,
        inputs,
        ExpiryWatch(references, metrics.show_expiry),
        pod_tokens,
    )


def _version(references: ReferenceValueProvider, clock: Clock) -> str | None:
    """None: no provider answers, which is what somebody who asks for the status wants to see."""
    try:
        return references.snapshot(clock()).version
    except ProviderUnavailable:
        return None


def open_audit(
    data: Path,
    settings: Settings,
    *,
    clock: Clock = system_clock,
    database: Database | None = None,
    known: LogTail | None = None,
) -> Log:
    """The audit log of a data directory, checked against its signed head; in the database if there is one.

    Args:
        database: to be shared with others. None: one is opened where the settings name one, and closed with the log.
        known: as `AuditLog` takes it.

    Raises:
        AuditUnavailable: it cannot be used, or it does not hold what its head vouches for.
        ConfigInvalid: the audit key does not load.
    """
    key = _audit_key(data / settings.keys.audit)
    head = data / settings.audit.head
    if settings.storage.kind == "postgres":
        from kbs.audit.postgres import PostgresAuditLog  # with it comes psycopg, which takes a tenth of a second
        from kbs.storage.postgres.opening import open_database

        alone = database is None
        database = database or open_database(data, settings.storage)
        return PostgresAuditLog(database, head, key, origin=ORIGIN, clock=clock, alone=alone)
    return AuditLog(data / settings.audit.log, head, key, origin=ORIGIN, clock=clock, known=known)


def _audit_key(path: Path) -> Ed25519PrivateKey:
    private = load_signing_key(path).private
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigInvalid(f"key file {path}: the audit key is Ed25519")
    return private


def _under(data: Path, path: Path | None) -> Path | None:
    return None if path is None else data / path


def _decision_inputs(
    data: Path, settings: Settings, sealing: SealingKeys, stores: Stores, clock: Clock
) -> DecisionInputs:
    policy = settings.policy
    bounds = Bounds(policy.history_decisions, policy.history_bytes, policy.history_days * 86_400.0)
    path = policy.history_path
    if path is None and settings.storage.kind == "sqlite":
        path = settings.storage.path / "decisions.db"
    if settings.storage.kind == "memory" or not bounds.records:
        return DecisionInputs(MemoryRecentStore(bounds), bounds, clock)
    recent = open_recent(_under(data, path), stores, sealing.for_purpose(b"decision inputs"), bounds)
    return DecisionInputs(recent, bounds, clock)


def _compiler(settings: Settings, clock: Clock) -> Compiler:
    found = settings.policy.opa or shutil.which("opa")
    return Compiler(None if found is None else Path(found), nanoseconds(clock))


def _engine(settings: Settings, clock: Clock) -> PolicyEngine:
    if settings.policy.engine == "opa-server":
        from kbs.policy.opa import OpaEngine  # with it comes aiohttp, a sixth of the time that a start takes
        from kbs.policy.opa_link import OpaLink

        return OpaEngine(OpaLink(_opa_server(settings.policy)))
    return WasmEngine(clock)


def _opa_server(policy: PolicySettings) -> OpaServerSettings:
    from kbs.policy.opa_link import OpaServerSettings

    address = urlsplit(policy.opa_url)
    timeout = policy.opa_timeout_seconds
    if address.scheme == "unix" and address.path:
        return OpaServerSettings(socket=Path(address.path), timeout=timeout)
    if address.scheme == "http" and address.hostname:
        return OpaServerSettings(host=address.hostname, port=address.port or 8181, timeout=timeout)
    raise ConfigInvalid(f"policy.opa_url: {policy.opa_url!r} is neither http://HOST:PORT nor unix:///PATH")


def _further_token_keys(data: Path, keys: KeySettings, signing: SigningKey) -> tuple[VerifyingKey, ...]:
    """Mostly there are none, and no file. The one that signs may be among them: files change one after the other."""
    path = data / (keys.token.with_name("token-also.pem") if keys.token_also is None else keys.token_also)
    if keys.token_also is None and not path.exists():
        return ()
    return tuple(key for key in load_verifying_keys(path) if key.kid != signing.kid)


def _trust(data: Path, settings: Settings, ring: KeyRing, name: str, life: timedelta) -> Trust:
    foreign = tuple(_trusted_issuer(data, issuer) for issuer in settings.token.trusted)
    return Trust(own_issuer(ring, name=name, max_life=life), foreign)


def _trusted_issuer(data: Path, issuer: TrustedIssuerSettings) -> TrustedIssuer:
    return TrustedIssuer(
        name=issuer.issuer,
        keys={} if issuer.jwks is None else parse_jwk_set((data / issuer.jwks).read_bytes()),
        store=None if issuer.trust_anchor is None else load_trust_store((data / issuer.trust_anchor).read_bytes()),
        algorithms=frozenset(issuer.algorithms),
        tee_key_pointers=(issuer.tee_key_pointer,),
        max_life=timedelta(seconds=issuer.max_life_seconds),
    )


def _token_settings(settings: Settings) -> AdminTokenSettings:
    return AdminTokenSettings(lifetime=timedelta(seconds=settings.admin.token_lifetime_seconds))


def _mint(settings: Settings, admin_key: SigningKey, clock: Clock) -> AdminTokenMint:
    return AdminTokenMint(admin_key, _token_settings(settings), Roles(), clock)


def _authenticator(
    data: Path, settings: Settings, admin_key: SigningKey, revocations: Revocations, clock: Clock
) -> AdminAuthenticator:
    acls = [Acl(acl.role, acl.allowed_endpoints) for acl in settings.admin.acls]
    providers = [
        IdentityProvider(
            issuer=provider.issuer,
            audience=provider.audience,
            keys={} if provider.jwk_set is None else parse_jwk_set((data / provider.jwk_set).read_bytes()),
            public_keys=()
            if provider.public_key is None
            else (parse_public_key((data / provider.public_key).read_bytes()),),
            max_life=timedelta(seconds=provider.max_life_seconds),
            roles=Roles(acls=acls),
        )
        for provider in settings.admin.identity_providers
    ]
    own = OwnTokens(
        keys={admin_key.kid: TrustedKey(admin_key.public, admin_key.alg)},
        settings=_token_settings(settings),
        roles=Roles(),
    )
    return AdminAuthenticator(AdminMode(settings.admin.mode), own, providers, revocations, clock)


def _listeners(settings: Settings) -> dict[int, Listener]:
    """Local port → the routes that answer there. With one kind of listener only, every port is a guest's."""
    server = settings.server
    found = {port_of(address): Listener.GUEST for address in server.listen}
    if server.admin_listen is not None:
        found[port_of(server.admin_listen)] = Listener.ADMIN
    if server.metrics_listen is not None:
        found[port_of(server.metrics_listen)] = Listener.METRICS
    return found
