"""The KBS's own settings: listeners, tokens, administration, storage (kbs-protocol 9.2, 9.3; older forms: 6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kbs.admin.authorization import compile_pattern
from kbs.errors import ConfigInvalid
from kbs.k8s.migrate.keys import read_tls
from kbs.k8s.migrate.model import Table, Verdict
from kbs.k8s.migrate.paths import Reading, is_public_key, is_public_key_set, public_file
from kbs.k8s.migrate.sources import Config

_OWN: Final = "own tokens are trusted without a setting"
_FLAT: Final[Mapping[str, tuple[str, str]]] = {
    "insecure_http": ("http_server", "insecure_http"),
    "sockets": ("http_server", "sockets"),
    "private_key": ("http_server", "private_key"),
    "certificate": ("http_server", "certificate"),
    "auth_public_key": ("admin", "auth_public_key"),
    "insecure_api": ("admin", "insecure_api"),
    "attestation_token_config": ("attestation_token", ""),
    "as_config": ("attestation_service", ""),
    "grpc_config": ("attestation_service", ""),
}
"""Members of the first versions, which had no tables, and where their successors are."""


def unflatten(config: Config) -> Config:
    """The same settings in tables, where they are of a version that had none."""
    content: dict[str, Any] = dict(config.content)
    if "http_server" in content or not set(content) & set(_FLAT):
        return config
    for old, (section, member) in _FLAT.items():
        if old not in content:
            continue
        value = content.pop(old)
        if member:
            content.setdefault(section, {})[member] = value
        elif isinstance(value, Mapping):
            content.setdefault(section, {}).update(value)
    return Config(config.source, content)


def read_server(root: Table, reading: Reading) -> None:
    """`[http_server]`."""
    root.drop(Verdict.NOT_NEEDED, "a handshake's state travels sealed in its cookie", "session_storage_type")
    server = root.table("http_server")
    if server is None:
        return
    read_tls(server, reading)
    if server.has("sockets"):
        addresses = server.texts("sockets")
        ports = sorted({each.rpartition(":")[2] for each in addresses})
        why = f"was port {', '.join(ports)}; the Service kbs has port 8080, patch it if guests know another"
        server.note("sockets", Verdict.OURS, why, 'server.listen = ["0.0.0.0:8080"]')
    _insecure_http(server)
    mebibytes = server.take("payload_request_size", int)
    if mebibytes is not None:
        octets = mebibytes << 20
        if mebibytes < 1:
            server.note("payload_request_size", Verdict.REFUSED, "no body would be small enough")
        else:
            names = [server.draft.set(f"server.max_{kind}_body", octets) for kind in ("attest", "resource")]
            why = "in octets; other bodies have bounds of their own"
            server.note("payload_request_size", Verdict.OURS, why, f"{', '.join(names)} = {octets}")
    workers = server.take("worker_count", int)
    if workers is not None:
        server.draft.set("server.workers", max(workers, 1))
        server.note("worker_count", Verdict.OURS, "processes, not threads", f"server.workers = {max(workers, 1)}")
    _tls_profile(server)


def _insecure_http(server: Table) -> None:
    if not server.has("insecure_http"):
        return
    if server.take("insecure_http", bool):
        server.note(
            "insecure_http",
            Verdict.REFUSED,
            "tokens and cookies would travel in clear: TLS is on. Guests' init data need https:// and the CA",
        )
    else:
        server.note("insecure_http", Verdict.OURS, "TLS is the default", "server.insecure_http = false")


def _tls_profile(server: Table) -> None:
    profile = server.take("tls_profile", str)
    if profile in ("intermediate", "old"):
        server.note("tls_profile", Verdict.NOT_NEEDED, "TLS 1.2 and 1.3 are spoken, nothing older")
    elif profile is not None:
        server.note("tls_profile", Verdict.NOT_OFFERED, "TLS 1.2 and 1.3 are spoken; there is no setting for less")
    why = "TLS 1.2 and 1.3 with the suites and groups that OpenSSL offers by default; there is no setting for others"
    server.drop(Verdict.NOT_OFFERED, why, "tls_min_version", "tls_max_version", "tls_ciphers", "tls_groups")


def read_tokens(root: Table) -> None:
    """`[attestation_token]`: which tokens are believed."""
    tokens = root.table("attestation_token")
    if tokens is None:
        return
    for name in ("insecure_header_jwk", "insecure_key"):
        if not tokens.has(name):
            continue
        if tokens.take(name, bool):
            why = f"a token would be believed by the key that it brings along itself; {_OWN}"
            tokens.note(name, Verdict.REFUSED, why)
        else:
            tokens.note(name, Verdict.NOT_NEEDED, "no token is believed by the key that it brings along")
    for name, setting in (("trusted_certs_paths", "trust_anchor"), ("trusted_jwk_sets", "jwks")):
        if not tokens.has(name):
            continue
        if not tokens.texts(name):
            tokens.note(name, Verdict.NOT_NEEDED, "is empty")
            continue
        why = (
            f"{_OWN}. If guests bring tokens of somebody else, name that issuer: [[token.trusted]] with issuer and "
            f"{setting}, a file (docs/settings.md)"
        )
        tokens.note(name, Verdict.BY_HAND, why)
    if tokens.has("extra_teekey_paths"):
        paths = tokens.texts("extra_teekey_paths")
        verdict = Verdict.BY_HAND if paths else Verdict.NOT_NEEDED
        why = "each issuer has one place: tee_key_pointer in its [[token.trusted]]" if paths else "is empty"
        tokens.note("extra_teekey_paths", verdict, why)
    tokens.drop(Verdict.NOT_NEEDED, "the only kind of token is EAR", "attestation_token_type", "type")


def read_admin(root: Table, reading: Reading) -> None:
    """`[admin]`. Whatever it says, tokens made with the broker's own key administer: the controller needs one."""
    admin = root.table("admin")
    if admin is None:
        return
    _mode(admin)
    providers, acls = _bearer(admin, reading), _acls(admin)
    if providers:
        admin.draft.set("admin.identity_providers", providers)
    if acls:
        admin.draft.set("admin.acls", acls)


def _mode(admin: Table) -> None:
    member = "authorization_mode" if admin.has("authorization_mode") else "type"
    mode = admin.take(member, str)
    ours = 'admin.mode = "authenticated"'
    if mode in ("InsecureAllowAll",):
        admin.note(member, Verdict.REFUSED, "everybody could write resources and policies without a token", ours)
    elif mode == "DenyAll":
        why = "nobody, the controller included, could write resources and policies; here only own admin tokens work"
        admin.note(member, Verdict.REFUSED, why, ours)
    elif mode in ("AuthenticatedAuthorization", "Simple"):
        admin.note(member, Verdict.OURS, "and tokens of `kbs admin token` work beside those of providers", ours)
    elif mode is not None:
        admin.note(member, Verdict.UNKNOWN, "not a mode of any version of the reference that is known here")
    if admin.has("insecure_api"):
        if admin.take("insecure_api", bool):
            why = "everybody could write resources and policies without a token"
            admin.note("insecure_api", Verdict.REFUSED, why, ours)
        else:
            admin.note("insecure_api", Verdict.NOT_NEEDED, "the default", ours)
    if admin.has("auth_public_key"):
        admin.take("auth_public_key", str)
        why = "tokens under it name no role, so they may do nothing here; make others: kbs admin token"
        admin.note("auth_public_key", Verdict.BY_HAND, why)
    for name in ("personas", "roles"):
        if admin.has(name):
            admin.take(name, list)
            why = "of versions 0.16 to 0.20: name each as provider and acl (docs/settings.md, admin)"
            admin.note(name, Verdict.BY_HAND, why)


def _bearer(admin: Table, reading: Reading) -> list[dict[str, Any]]:
    authentication = admin.table("authentication")
    bearer = None if authentication is None else authentication.table("bearer_jwt")
    providers = [] if bearer is None else bearer.tables("identity_providers")
    found = [_provider(each, reading) for each in providers]
    return [each for each in found if each is not None]


def _provider(provider: Table, reading: Reading) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    compared = {member: provider.take(member, str) for member in ("issuer", "audience")}
    for member, ours, is_good in (
        ("public_key_uri", "public_key", is_public_key),
        ("jwk_set_uri", "jwk_set", is_public_key_set),
    ):
        uri = provider.take(member, str)
        if uri is None:
            continue
        setting = f"admin.identity_providers[].{ours}"
        is_far = uri.startswith(("https://", "http://"))
        path = None if is_far else public_file(reading, uri, is_good)
        if path is not None:
            found[ours] = path
            provider.note(member, Verdict.OURS, f"{uri} is at this path", f'{setting} = "{path}"')
        elif is_far:
            why = f"nothing is fetched at start: download it once, mount it, and name the file as {setting}"
            provider.note(member, Verdict.BY_HAND, why)
        else:
            why = f"{uri} is not among the input (--root finds public files on this machine); mount it for {setting}"
            provider.note(member, Verdict.BY_HAND, why)
    for member, text in compared.items():
        if text is None:
            continue
        verdict, why = Verdict.OURS, "compared as before"
        if not found:
            verdict, why = Verdict.BY_HAND, "goes with the key of this provider, which is missing"
        provider.note(member, verdict, why, f"admin.identity_providers[].{member}")
    if not found:
        return None
    return {member: text for member, text in compared.items() if text is not None} | found


def _acls(admin: Table) -> list[dict[str, str]]:
    authorization = admin.table("authorization")
    regex = None if authorization is None else authorization.table("regex_acl")
    found = []
    for acl in [] if regex is None else regex.tables("acls"):
        role, pattern = acl.take("role", str), acl.take("allowed_endpoints", str)
        if role is None or pattern is None:
            acl.note_all(Verdict.REFUSED, "a rule needs role and allowed_endpoints")
            continue
        try:
            compile_pattern(pattern)
        except ConfigInvalid as err:
            acl.note_all(Verdict.REFUSED, str(err))
            continue
        found.append({"role": role, "allowed_endpoints": pattern})
        why = "must match the whole path; a query is no part of it"
        acl.note_all(Verdict.OURS, why, f"admin.acls[] of role {role}")
    return found


def read_storage(storage: Table | None) -> str | None:
    """`[storage_backend]`, whosever it is. Returns the kind, in lower case without underscores."""
    if storage is None:
        return None
    kind = storage.take("storage_type", str)
    plain = "" if kind is None else kind.lower().replace("_", "")
    if plain in ("", "memory"):
        why = "was lost at each restart; here it is a database on the volume of the Pod"
        storage.note("storage_type", Verdict.OURS, why, 'storage.kind = "sqlite"')
    elif plain in ("localfs", "localjson"):
        why = "a database on the volume of the Pod, sealed; what the old volume holds is not read (see the steps)"
        storage.note("storage_type", Verdict.OURS, why, 'storage.kind = "sqlite"')
    elif plain == "postgres":
        why = "another layout, sealed: an empty database of its own, whose address is in the Secret kbs-postgres"
        storage.note("storage_type", Verdict.BY_HAND, why, 'storage.kind = "postgres"')
        storage.draft.replicated = True
    elif plain == "redis":
        why = "replicas share PostgreSQL here; one broker needs neither"
        storage.note("storage_type", Verdict.NOT_OFFERED, why)
    else:
        storage.note("storage_type", Verdict.UNKNOWN, "not a store of any version of the reference that is known here")
    backends = storage.table("backends")
    if backends is not None:
        why = "the database is in the data directory; the old folder is not read"
        for name in ("local_fs", "local_json"):
            inner = backends.table(name)
            if inner is not None:
                inner.drop(Verdict.NOT_NEEDED, why, "dir_path", "file_dir_path", "file_path")
        why = "a database of its own: its address goes into the Secret kbs-postgres, the password with it"
        for name in ("postgres", "redis"):
            backends.drop(Verdict.NOT_NEEDED if plain != name else Verdict.BY_HAND, why, name)
    return plain
