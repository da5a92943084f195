"""Plugin `provisioner`: one disk key for each virtual machine, named by a UUID (kbs-protocol 8.3).

POST   provisioner/provision {"vm_name", "namespace"}   administrators; makes the key once, tells its path
DELETE provisioner/provision/UUID                       administrators
GET    provisioner/default/UUID/root                    the guest whose init data name this very resource
"""

from __future__ import annotations

import hmac
import json
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kbs import config, strict_json
from kbs.attestation.ear import INIT_DATA_CLAIMS_POINTER, find
from kbs.clock import Clock
from kbs.errors import ConfigInvalid, MalformedMessage, ResourceNotFound, VersionConflict
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginContext, PluginRequest
from kbs.secret import Secret
from kbs.storage.model import KeyValueStore

NAMESPACE: Final = "provisioner"
_ROOT: Final = uuid.uuid5(uuid.NAMESPACE_URL, "provisioner_plugin")
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_EVEN: Final = 256 - 256 % len(_ALPHABET)  # octets from here on would favour the first letters
_CLAIM: Final = "trustee.kbs.resource"
_GUARDS: Final[Mapping[str, Guard]] = {
    "GET": Guard(Access.TOKEN),
    "POST": Guard(Access.ADMIN, "plugin.admin"),
    "DELETE": Guard(Access.ADMIN, "plugin.admin"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionerSettings:
    """Options of the plugin. key_length: letters and digits of one key."""

    key_length: int = 32


class ProvisionerPlugin:
    """Makes and hands out disk keys."""

    blocks = False

    def __init__(self, length: int, store: KeyValueStore, clock: Clock, random: Callable[[int], bytes]) -> None:
        self._length = length
        self._store = store
        self._clock = clock
        self._random = random

    def guards(self) -> Mapping[str, Guard]:
        """GET for guests; POST and DELETE for administrators."""
        return _GUARDS

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one request."""
        match (request.method, *request.segments):
            case ("GET", "default", name, "root") if request.guest is not None:
                return self._read(_uuid(name), request.guest.claims)
            case ("POST", "provision"):
                return self._provision(request.body, request.author or "unknown")
            case ("DELETE", "provision", name):
                self._store.delete(NAMESPACE, _uuid(name))
                return PluginAnswer(Secret(b'{"status":"deleted"}'), action="delete")
        raise ResourceNotFound("provisioner has provision, and default/UUID/root")

    def _provision(self, body: bytes, author: str) -> PluginAnswer:
        namespace, name = _machine(body)
        made = uuid_of(namespace, name)
        meta = {"author": author, "time": self._clock().isoformat(), "machine": f"{namespace}/{name}"}
        with suppress(VersionConflict):  # there is one: that one stays
            self._store.put(NAMESPACE, made, self._text(), meta=meta, expected=0)
        answer = {"uuid": made, "resource_path": f"default/{made}/root"}
        return PluginAnswer(Secret(json.dumps(answer, separators=(",", ":")).encode()), action="provision")

    def _read(self, name: str, claims: Mapping[str, Any]) -> PluginAnswer:
        """The bytes, for the guest whose measured init data ask for them by name. To others there are none."""
        refusal = f"no resource default/{name}/root"
        own = find(claims, INIT_DATA_CLAIMS_POINTER)
        asked = own.get(_CLAIM) if isinstance(own, Mapping) else None
        expected = f"kbs+provisioner:///default/{name}/root"
        if not isinstance(asked, str) or not hmac.compare_digest(asked.encode(), expected.encode()):
            raise ResourceNotFound(refusal, operator_detail=f"{refusal}: init data have no such {_CLAIM}")
        record = self._store.get(NAMESPACE, name)
        if record is None:
            raise ResourceNotFound(refusal)
        return PluginAnswer(Secret(record.value), version=record.version)

    def _text(self) -> bytes:
        letters = ""
        while len(letters) < self._length:
            letters += "".join(_ALPHABET[octet % len(_ALPHABET)] for octet in self._random(64) if octet < _EVEN)
        key = letters[: self._length]
        return f'version = "0.1.0"\n\n[data]\n"io.cryptsetup.key.text.root" = "{key}"\n'.encode("ascii")


def uuid_of(namespace: str, name: str) -> str:
    """The UUID (version 5) of a machine."""
    return str(uuid.uuid5(_ROOT, f"{namespace}/{name}"))


def _machine(body: bytes) -> tuple[str, str]:
    document = strict_json.decode(body)
    if not isinstance(document, dict) or document.keys() - {"vm_name", "namespace"}:
        raise MalformedMessage("expected an object with vm_name and, if need be, namespace")
    namespace, name = document.get("namespace", "default"), document.get("vm_name")
    for each in (namespace, name):  # with a slash two machines would have one UUID
        if not isinstance(each, str) or not _NAME.fullmatch(each):
            raise MalformedMessage("vm_name and namespace: 1 to 253 of A-Z a-z 0-9 _ - and, not in first place, dots")
    return str(namespace), str(name)


def _uuid(text: str) -> str:
    """A UUID in its one form: lower case, with dashes."""
    try:
        parsed = str(uuid.UUID(text))
    except ValueError:
        parsed = None
    if parsed != text:
        raise ResourceNotFound("no such machine")
    return text


def build(context: PluginContext) -> ProvisionerPlugin:
    """Entry point `kbs.plugins: provisioner`.

    Raises:
        ConfigInvalid: options that cannot work.
    """
    settings = config.structure(context.options, ProvisionerSettings, "plugins.options.provisioner")
    if not 16 <= settings.key_length <= 4096:
        raise ConfigInvalid("settings: plugins.options.provisioner.key_length: 16 to 4096")
    return ProvisionerPlugin(settings.key_length, context.store, context.clock, context.random)
