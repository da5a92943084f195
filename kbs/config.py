"""Every setting, typed and frozen. Nobody else reads files or the environment for settings.

Order: defaults here, then `kbs.toml` in the data directory (or the file that the variable `KBS_CONFIG` names), then
`KBS__SECTION__KEY` variables. Every problem is reported at once and unknown keys are refused. Secrets are given as
files. Components receive their own section.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import cattrs
from cattrs.errors import ClassValidationError

from kbs.errors import ConfigInvalid

_T = TypeVar("_T")
_PREFIX = "KBS__"
_FILE = "KBS_CONFIG"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")  # as in kbs.protocol.resource_path
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Listeners, TLS and the size of what is read from strangers."""

    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    admin_listen: str | None = None  # when set, admin routes answer there only
    metrics_listen: str | None = None  # /metrics and probes; none: /metrics is not served
    public_url: str | None = None  # the `iss` of tokens; also switches OIDC discovery on
    insecure_http: bool = False  # plain HTTP, on whatever address `listen` names
    tls_certificate: Path = Path("tls/server.pem")
    tls_key: Path = Path("tls/server.key")
    workers: int = 0  # 0: one per core that this process may use
    drain_seconds: float = 0.0  # to go on serving after SIGTERM, not ready, until load balancers have noticed
    max_attest_body: int = 8 << 20  # octets
    max_resource_body: int = 2 << 20  # octets, upload of one resource
    max_statement_body: int = 12 << 20  # octets, signed reference values
    max_body: int = 1 << 20  # octets, everything else
    max_connections: int = 2_000  # per worker
    max_handshake_rate: int = 0  # auth and attest a second, per worker; 0: no limit
    max_handshake_rate_per_source: int = 2_000  # the same from one address other than loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeSettings:
    """The RCAR handshake."""

    challenge_ttl_seconds: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSettings:
    """The guest protocol."""

    minimum_version: Literal["0.1.0", "0.1.1", "0.2.0", "0.4.0"] = "0.1.0"  # oldest that is spoken


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationSettings:
    """Which TEEs are accepted and what their verifiers may tolerate."""

    tees: tuple[str, ...] = ("snp",)
    insecure_sample: bool = False  # software TEEs: anyone can forge their evidence
    verbose_token: bool = True  # keep additional-evidence in the token
    allow_unchecked_revocation: tuple[str, ...] = ()  # TEEs whose missing revocation list does not bar affirming
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # per TEE, e.g. options.snp.snp_v2_product
    anchors: Mapping[str, Path] = field(default_factory=dict)  # per TEE: JSON file of trust roots instead of built-in
    insecure_test_root: Path | None = None  # folder of make-believe vendors: whoever reads it can forge any evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementSettings:
    """Vendor collateral: where it may come from, and for how long it is used."""

    network: bool = True
    cache: Path = Path("cache/endorsements")
    offline: Path | None = None  # folder of files to look in first
    timeout_seconds: float = 5.0
    max_stale_hours: int | None = None  # use beyond the time to ask again; None: to the item's own end, never beyond
    amd_url: str = "https://kdsintf.amd.com"
    intel_urls: tuple[str, ...] = ("https://api.trustedservices.intel.com",)  # PCS or PCCS, asked in this order
    tcb_update: Literal["early", "standard"] = "early"  # edition of Intel's TCB info and identities
    azure_url: str | None = None  # Azure's cache of AMD and Intel collateral, asked before the vendors
    hygon_url: str = "https://cert.hygon.cn"
    stores: tuple[str, ...] = ()  # HTTPS servers of one's own that keep items by name, asked before the vendors
    ca_file: Path | None = None  # PEM of further authorities for `intel_urls` and `stores`


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuerSettings:
    """A foreign issuer of attestation tokens (passport model)."""

    issuer: str
    jwks: Path | None = None
    trust_anchor: Path | None = None  # PEM bundle; tokens then bring `jwk.x5c`
    algorithms: tuple[str, ...] = ("ES256",)
    tee_key_pointer: str = "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey"
    max_life_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """The attestation token we issue and the ones we accept."""

    lifetime_seconds: int = 300
    eat_profile: str = "tag:github.com,2024:confidential-containers/Trustee"
    developer: str = "https://confidentialcontainers.org"
    signer_chain: Path | None = None  # PEM, leaf first; adds `jwk` with `x5c` to the header
    trusted: tuple[TrustedIssuerSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Who evaluates Rego, and which shipped set is in force until somebody uploads another."""

    engine: Literal["wasm", "opa-server"] = "wasm"
    set: Literal["default", "upstream"] = "default"
    opa: Path | None = None  # the `opa` binary for uploads; none: looked for on the search path
    opa_url: str = "http://127.0.0.1:8181"  # or unix:///run/opa.sock
    opa_timeout_seconds: float = 2.0
    tenants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tenant: its repositories
    history_decisions: int = 1_000  # newest decisions whose inputs are kept for replays; 0: none
    history_bytes: int = 32 << 20  # octets of such inputs, all together
    history_days: int = 7  # no longer than this
    history_path: Path | None = None  # file for them; none: decisions.db beside the store


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSettings:
    """Reference values: kept by this broker, or by a provider of its own (`rvps serve`)."""

    publishers: Path | None = None  # TOML: who may sign which values; only where this broker keeps them itself
    url: str | None = None  # of the provider's REST API; none: this broker keeps reference values itself
    token_file: Path | None = None  # the provider's broker-token
    ca_file: Path | None = None  # PEM of the only roots to trust at `url`
    poll_seconds: float = 0.5
    max_age_seconds: float = 10.0  # values that nobody confirmed for longer are not used


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """What may be released; each name is an entry point `kbs.plugins`."""

    enabled: tuple[str, ...] = ("resource",)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # per plugin; it checks its own


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSettings:
    """Resources that come into being when an allowed guest first asks for them."""

    path: str  # repository/type/tag; each may be `*`
    bytes: int = 32
    encoding: Literal["raw", "base64", "hex"] = "raw"
    bind: str | None = None  # "init_data" or JSON pointer into the claims: TYPE is that claim, or its SHA-256
    escrow: Path | None = None  # PEM of an administrator's public key: a copy sealed to it is kept with each version
    old_versions_seconds: int = 0  # how long a guest may still ask for a version after a rotation
    most: int = 10_000  # how many of them are made


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSettings:
    """Where resources are beside the broker's own store, and which are made on first use."""

    store: tuple[Mapping[str, Any], ...] = ()  # `prefix`, `type` and what that type of store needs
    generate: tuple[GeneratedSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where rules and resources are kept."""

    kind: Literal["sqlite", "postgres", "memory"] = "sqlite"
    path: Path = Path("store")
    dsn_file: Path | None = None  # postgres: file with one libpq URI, password and all
    connections: int = 4  # postgres: the most that are open at a time, per worker
    insecure_transport: bool = False  # postgres: go on without `sslmode=verify-full` to another machine


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """The audit log and, outside it, its signed head."""

    log: Path = Path("audit/log.jsonl")
    head: Path = Path("audit-head")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Key files; all but the sealing key can be made anew without losing data."""

    sealing: Path = Path("keys/sealing.key")
    session: Path = Path("keys/session.key")
    token: Path = Path("keys/token.pem")
    token_also: Path | None = None  # verify and do not sign: former ones, the next; none: token-also.pem beside it
    admin: Path = Path("keys/admin.pem")
    audit: Path = Path("keys/audit.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProviderSettings:
    """An external identity provider for administrators (kbs-protocol 6.1)."""

    issuer: str | None = None
    audience: str | None = None
    public_key: Path | None = None  # PEM
    jwk_set: Path | None = None
    max_life_seconds: int = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class AclSettings:
    """Paths a role of an external identity provider may use; full match, linear-time engine."""

    role: str
    allowed_endpoints: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """Administration. Own admin tokens always work unless the mode says otherwise."""

    mode: Literal["authenticated", "deny-all", "insecure-allow-all"] = "authenticated"
    token_lifetime_seconds: int = 86_400
    identity_providers: tuple[IdentityProviderSettings, ...] = ()
    acls: tuple[AclSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesIdentitySettings:
    """One workload cluster whose Pods may say who they are, beside evidence."""

    name: str  # ours for the cluster; policies see it
    issuer: str  # `iss` of its service-account tokens
    audience: str | None = None  # `aud` that a token must have; None: server.public_url
    api_server: str | None = None  # https://HOST[:PORT]; it is asked about every token
    ca_file: Path | None = None  # PEM of the only roots to trust there
    token_file: Path | None = None  # credential of the account that may create TokenReviews, read anew for each
    jwks_file: Path | None = None  # in place of the three: the issuer's public keys
    timeout_seconds: float = 3.0
    cache_seconds: float = 10.0  # how long an answer of the API server is used
    max_life_seconds: int = 86_400  # longest `exp` - `iat`


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """What may say more of an attested guest."""

    kubernetes: tuple[KubernetesIdentitySettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatSettings:
    """Old ways of the field, each off unless switched on."""

    allow_rsa1_5: bool = False  # RSAES-PKCS1-v1_5 for guests up to v0.11


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All sections. Relative paths are under the data directory."""

    server: ServerSettings = field(default_factory=ServerSettings)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    handshake: HandshakeSettings = field(default_factory=HandshakeSettings)
    attestation: AttestationSettings = field(default_factory=AttestationSettings)
    endorsements: EndorsementSettings = field(default_factory=EndorsementSettings)
    token: TokenSettings = field(default_factory=TokenSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    references: ReferenceSettings = field(default_factory=ReferenceSettings)
    plugins: PluginSettings = field(default_factory=PluginSettings)
    resource: ResourceSettings = field(default_factory=ResourceSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    compat: CompatSettings = field(default_factory=CompatSettings)

    def insecure_switches(self) -> tuple[str, ...]:
        """Names of everything unsafe that is on; shown at start, on the health page and in a metric."""
        found = []
        if self.server.insecure_http:
            found.append("server.insecure_http")
        if self.attestation.insecure_sample:
            found.append("attestation.insecure_sample")
        if self.attestation.insecure_test_root is not None:
            found.append("attestation.insecure_test_root")
        if self.storage.insecure_transport:
            found.append("storage.insecure_transport")
        if self.admin.mode == "insecure-allow-all":
            found.append("admin.mode=insecure-allow-all")
        return tuple(found)


def load(data: Path, environment: Mapping[str, str] | None = None, *, file: Path | None = None) -> Settings:
    """Read the settings file and the environment.

    Args:
        data: the data directory; relative paths in the settings are resolved against it.
        environment: variables to read in place of the process's own (tests).
        file: the settings; None: what `KBS_CONFIG` names, else `data/kbs.toml`. It is only read and may be a link, as
            in the volumes that Kubernetes makes of ConfigMaps.

    Raises:
        ConfigInvalid: file missing or not TOML, unknown keys, wrong types, settings that contradict each other; the
            text lists every problem.
    """
    if environment is None:
        environment = os.environ
    if file is None and environment.get(_FILE):
        file = Path(environment[_FILE])
    path = file or data / "kbs.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        advice = "" if file else f"; make a data directory with: kbs init {data}"
        raise ConfigInvalid(f"{path} does not exist{advice}") from None
    except OSError as err:
        raise ConfigInvalid(f"{path}: {err.strerror}") from None
    except UnicodeDecodeError as err:
        raise ConfigInvalid(f"{path} is not TOML: {err}") from None
    return read(text, environment, name=str(path))


def read(text: str, environment: Mapping[str, str], *, name: str) -> Settings:
    """The same from the text of a settings file, which errors call `name`.

    Raises:
        ConfigInvalid: as for `load`.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigInvalid(f"{name} is not TOML: {err}") from None
    _overlay(document, environment)
    return parse(document)


def parse(document: Mapping[str, Any]) -> Settings:
    """Turn a decoded document into settings.

    Raises:
        ConfigInvalid: as for `load`.
    """
    try:
        settings = _CONVERTER.structure(document, Settings)
    except ClassValidationError as err:
        problems = "; ".join(_problems(err, ""))
        raise ConfigInvalid(f"settings: {problems}") from None
    check(settings)
    return settings


def structure(document: Mapping[str, Any], kind: type[_T], where: str) -> _T:
    """Turn a table that only its reader knows (options of a plugin, of a store) into that reader's own settings.

    Raises:
        ConfigInvalid: unknown keys, wrong types; the text lists every problem, each with `where`.
    """
    try:
        return _CONVERTER.structure(document, kind)
    except ClassValidationError as err:
        raise ConfigInvalid(f"settings: {where}: {'; '.join(_problems(err, ''))}") from None


def _overlay(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in sorted(environment.items()):
        if not name.startswith(_PREFIX):
            continue
        *sections, key = name.removeprefix(_PREFIX).lower().split("__")
        table = document
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigInvalid(f"settings: {name}: {section} is no section")
        table[key] = _toml_value(text)


def _toml_value(text: str) -> Any:
    """A variable's text is a TOML value; what is not one is a string, so that paths need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check(settings: Settings) -> None:
    """Refuse settings that contradict each other or mean nothing; also after a command line changed some.

    Raises:
        ConfigInvalid: the text lists every problem.
    """
    problems = [*_address_problems(settings.server), *_bound_problems(settings)]
    samples = {"sample", "sampledevice"} & set(settings.attestation.tees)
    if samples and not settings.attestation.insecure_sample:
        named = ", ".join(sorted(samples))
        problems.append(f"attestation.tees names {named}: needs attestation.insecure_sample = true")
    if not settings.attestation.tees:
        problems.append("attestation.tees is empty: name the TEEs to accept")
    for provider in settings.admin.identity_providers:
        if provider.public_key is None and provider.jwk_set is None:
            problems.append("admin.identity_providers: each needs public_key or jwk_set")
    problems += _policy_problems(settings.policy)
    problems += _reference_problems(settings.references)
    problems += _storage_problems(settings.storage)
    if problems:
        raise ConfigInvalid("settings: " + "; ".join(problems))


def port_of(address: str) -> int:
    """The port of an address that `check` let through."""
    return int(address.rpartition(":")[2])


def _address_problems(server: ServerSettings) -> list[str]:
    """Listeners are told apart by their port (a connection knows no more of its side), so kinds share none."""
    kinds = {
        "server.listen": server.listen,
        "server.admin_listen": () if server.admin_listen is None else (server.admin_listen,),
        "server.metrics_listen": () if server.metrics_listen is None else (server.metrics_listen,),
    }
    named = [(kind, address) for kind, addresses in kinds.items() for address in addresses]
    problems = [
        f"{kind}: {address!r} is not HOST:PORT with a port from 1 to 65535"
        for kind, address in named
        if not (_ADDRESS.fullmatch(address) and 0 < port_of(address) < 1 << 16)
    ]
    if not server.listen:
        problems.append("server.listen is empty: name an address")
    if problems:
        return problems
    users: dict[int, set[str]] = {}
    for kind, address in named:
        users.setdefault(port_of(address), set()).add(kind)
    return [
        f"{' and '.join(sorted(sharing))} share port {port}: each needs its own, also on different addresses"
        for port, sharing in users.items()
        if len(sharing) > 1
    ]


def _policy_problems(policy: PolicySettings) -> list[str]:
    problems = [
        f"policy.tenants: {name!r} is not 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first"
        for name in policy.tenants
        if not _TENANT.fullmatch(name)
    ]
    problems += [
        f"policy.tenants.{tenant}: {name!r} is no repository"
        for tenant, names in policy.tenants.items()
        for name in names
        if not _REPOSITORY.fullmatch(name)
    ]
    if policy.history_decisions < 0 or policy.history_bytes < 1 << 16 or policy.history_days < 1:
        problems.append("policy.history_decisions is at least 0, history_bytes 65536, history_days 1")
    return problems


def _is_safe_for_tokens(url: str) -> bool:
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError:
        return False
    return bool(host) and (address.scheme == "https" or (address.scheme == "http" and host in _LOOPBACK))


def _reference_problems(references: ReferenceSettings) -> list[str]:
    problems = []
    if references.url is not None:
        if not _is_safe_for_tokens(references.url):
            problems.append("references.url: https://HOST:PORT, or http:// to this machine: a token travels with it")
        if references.token_file is None:
            problems.append("references.url needs references.token_file, a copy of the provider's broker-token")
        if references.publishers is not None:
            problems.append("references.publishers: the provider at references.url has its own")
    if references.poll_seconds < 0.05 or references.max_age_seconds < 2 * references.poll_seconds:
        problems.append("references.poll_seconds is at least 0.05, references.max_age_seconds twice as much")
    return problems


def _storage_problems(storage: StorageSettings) -> list[str]:
    if storage.kind == "postgres":
        problems = [] if storage.dsn_file is not None else ["storage.kind = postgres needs storage.dsn_file"]
        if not 1 <= storage.connections <= 64:
            problems.append("storage.connections is 1 to 64")
        return problems
    named = {"storage.dsn_file": storage.dsn_file, "storage.insecure_transport": storage.insecure_transport}
    return [f"{name} is for storage.kind = postgres" for name, value in named.items() if value]


def _bound_problems(settings: Settings) -> list[str]:
    server = settings.server
    positive = {
        "handshake.challenge_ttl_seconds": settings.handshake.challenge_ttl_seconds,
        "token.lifetime_seconds": settings.token.lifetime_seconds,
        "admin.token_lifetime_seconds": settings.admin.token_lifetime_seconds,
        "server.max_attest_body": server.max_attest_body,
        "server.max_resource_body": server.max_resource_body,
        "server.max_statement_body": server.max_statement_body,
        "server.max_body": server.max_body,
        "server.max_connections": server.max_connections,
        "endorsements.timeout_seconds": settings.endorsements.timeout_seconds,
    }
    not_negative = {
        "endorsements.max_stale_hours": settings.endorsements.max_stale_hours or 0,
        "server.workers": server.workers,
        "server.drain_seconds": server.drain_seconds,
        "server.max_handshake_rate": server.max_handshake_rate,
        "server.max_handshake_rate_per_source": server.max_handshake_rate_per_source,
    }
    problems = [f"{name} must be positive" for name, value in positive.items() if value <= 0]
    problems += [f"{name} must not be negative" for name, value in not_negative.items() if value < 0]
    if settings.storage.kind == "memory" and server.workers > 1:
        problems.append(
            "storage.kind = memory: workers would share nothing, not even what was revoked; server.workers = 1"
        )
    return problems


def _strict(kind: type) -> Any:
    def structure(value: Any, _: type) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return structure


def _structure_float(value: Any, _: type) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _structure_path(value: Any, _: type) -> Path:
    if not isinstance(value, str) or not value:
        raise TypeError("expected a path")
    return Path(value)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(Path, _structure_path)
    return converter


_CONVERTER = _converter()


def _problems(err: ClassValidationError, where: str) -> list[str]:
    return [
        text.replace(" @ $.", " at ").removesuffix(" @ $") for text in cattrs.transform_error(err, path=where or "$")
    ]
