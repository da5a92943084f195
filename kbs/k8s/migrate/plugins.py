"""`[[plugins]]` of the KBS (kbs-protocol 8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from kbs.k8s.migrate.model import Table, Verdict
from kbs.k8s.migrate.paths import Reading, is_certificates, public_file

_NAMES: Final[Mapping[str, str]] = {
    "ResourceStorage": "resource",
    "Sample": "sample",
    "Provisioner": "provisioner",
    "NebulaCaPlugin": "nebula-ca",
    "Pkcs11": "pkcs11",
    "ExternalPlugin": "external",
}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_BACKEND: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


def read_plugins(root: Table, reading: Reading) -> None:
    """All of them. Without any, `resource` is enabled all the same: the controller writes resources."""
    enabled = ["resource"]
    for plugin in root.tables("plugins"):
        given = plugin.take("name", str)
        name = _NAMES.get(given or "", given or "")
        read = _READERS.get(name)
        if read is None:
            plugin.note("name", Verdict.UNKNOWN, "not a plugin of any version of the reference that is known here")
        elif read(plugin, reading):
            if name not in enabled:
                enabled.append(name)
            plugin.note("name", Verdict.OURS, f"docs/plugins/{name}.md", f'plugins.enabled has "{name}"')
    if enabled != ["resource"]:
        root.draft.set("plugins.enabled", enabled)


def _resource(plugin: Table, reading: Reading) -> bool:
    del reading
    kind = plugin.take("storage_backend_type", str)
    old = plugin.take("type", str)
    plugin.drop(Verdict.NOT_NEEDED, "the store is a database in the data directory", "dir_path")
    member, kind = ("type", old) if kind is None else ("storage_backend_type", kind)
    plain = (kind or "").lower()
    if plain in ("kvstorage", "localfs", ""):
        if kind is not None:
            plugin.note(member, Verdict.OURS, "the broker's own store, sealed, with versions")
        return True
    if plain == "vault":
        plugin.drop(Verdict.BY_HAND, "see storage_backend_type", "token", "vault_url", "mount_path", "ca_certs")
        if plugin.take("verify_ssl", bool) is False:
            plugin.note("verify_ssl", Verdict.REFUSED, "the store's certificate is always checked: ca_file")
        why = (
            '[[resource.store]] with type = "vault", kv = 1, and the token in a file of its own; it stood in the '
            "settings in clear: make another (docs/plugins/resource.md)"
        )
        plugin.note(member, Verdict.BY_HAND, why)
        return True
    if plain in ("aws", "gcp"):
        plugin.drop(Verdict.BY_HAND, "see storage_backend_type", "region", "endpoint_url", "project_id")
        why = f'[[resource.store]] with type = "{plain}"; names are whole paths (docs/plugins/resource.md)'
        plugin.note(member, Verdict.BY_HAND, why)
        return True
    if plain == "aliyun":
        plugin.drop(
            Verdict.NOT_OFFERED, "see storage_backend_type", "client_key", "kms_instance_id", "password", "cert_pem"
        )
        plugin.note(
            member, Verdict.NOT_OFFERED, "there is no store in Aliyun's KMS; docs/plugins/resource.md has others"
        )
        return True
    plugin.note(member, Verdict.UNKNOWN, "not a store of any version of the reference that is known here")
    return True


def _sample(plugin: Table, reading: Reading) -> bool:
    del reading
    plugin.drop(Verdict.NOT_NEEDED, "nothing used it", "item")
    plugin.note("name", Verdict.NOT_OFFERED, "a pattern for programmers; it released nothing")
    return False


def _provisioner(plugin: Table, reading: Reading) -> bool:
    del reading
    length = plugin.take("key_length", int)
    if length is not None:
        if not 16 <= length <= 4096:
            plugin.note("key_length", Verdict.REFUSED, "16 to 4096 letters and digits")
        else:
            _option(plugin, "provisioner", "key_length", length)
            plugin.note("key_length", Verdict.OURS, "as before", "plugins.options.provisioner.key_length")
    return True


def _nebula(plugin: Table, reading: Reading) -> bool:
    del reading
    plugin.drop(Verdict.BY_HAND, "see name", "work_dir", "nebula_cert_bin_path")
    for name in ("ca_config", "self_signed_ca"):
        if plugin.has(name):
            plugin.take(name, dict)
            plugin.note(name, Verdict.BY_HAND, "see name")
    why = (
        "the image has no nebula-cert, and the CA of the old broker is on its volume: bring both, and enable it with "
        "the same options (docs/plugins/nebula-ca.md)"
    )
    plugin.note("name", Verdict.BY_HAND, why)
    return False


def _pkcs11(plugin: Table, reading: Reading) -> bool:
    del reading
    plugin.drop(Verdict.BY_HAND, "see name", "pin", "module", "slot_index", "rsa_mechanism", "lookup_label")
    why = (
        "the vendor's module and a file with the PIN have to be mounted; the same options otherwise. The PIN stood in "
        "the settings in clear: change it (docs/plugins/pkcs11.md)"
    )
    plugin.note("name", Verdict.BY_HAND, why)
    return False


def _external(plugin: Table, reading: Reading) -> bool:
    found = [_backend(each, reading) for each in plugin.tables("backends")]
    backends = [each for each in found if each is not None]
    if not backends:
        plugin.note("name", Verdict.BY_HAND, "none of its programs could be taken over, see there")
        return False
    _option(plugin, "external", "backends", backends)
    return True


def _backend(backend: Table, reading: Reading) -> dict[str, Any] | None:
    name, endpoint = backend.take("name", str) or "", backend.take("endpoint", str) or ""
    found: dict[str, Any] = {"name": name, "endpoint": endpoint}
    timeout, authority = backend.take("timeout_ms", int), backend.take("ca_cert_path", str)
    backend.drop(Verdict.NOT_NEEDED, "the reference did not read it either", "tls_mode")
    address = urlsplit(endpoint)
    if not _BACKEND.fullmatch(name) or address.scheme not in ("http", "https") or not address.hostname:
        backend.note_all(Verdict.REFUSED, "a program has a name and http://HOST:PORT or https://HOST:PORT")
        return None
    if timeout is not None:
        found["timeout_ms"] = max(timeout, 1)
    if address.scheme == "http" and address.hostname not in _LOOPBACK:
        backend.note_all(Verdict.REFUSED, "requests and secrets would travel in clear: https:// with its CA")
        return None
    if address.scheme == "https":
        path = None if authority is None else public_file(reading, authority, is_certificates)
        if path is None:
            why = "its CA is not among the input (--root finds public files on this machine); mount it for ca_cert_path"
            backend.note_all(Verdict.BY_HAND, why)
            return None
        found["ca_cert_path"] = path
    why = "guests may only GET (guest_methods); answers are always sealed"
    if address.hostname in _LOOPBACK:
        why += "; it is on the Pod's own loopback: run the program as a container of the same Pod"
    backend.note_all(Verdict.OURS, why, f"plugins.options.external.backends[] {name}")
    return found


def _option(plugin: Table, name: str, option: str, value: object) -> None:
    options = plugin.draft.settings.setdefault("plugins", {}).setdefault("options", {})
    options.setdefault(name, {})[option] = value


_READERS: Final[Mapping[str, Callable[[Table, Reading], bool]]] = {
    "resource": _resource,
    "sample": _sample,
    "provisioner": _provisioner,
    "nebula-ca": _nebula,
    "pkcs11": _pkcs11,
    "external": _external,
}
