"""Contents of the Secrets and ConfigMaps that objects name, read when they are needed and not kept."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from kbs.k8s.api import CONFIG_MAPS, SECRETS, Api, ApiForbidden, ApiNotFound
from kbs.k8s.documents import read_meta
from kbs.k8s.model import CaBundle, KeyRef, SecretState
from kbs.secret import Secret


class Unmet(Exception):
    """What an object needs is not there or not as it must be. `str(err)` is for people and holds no content.

    reason: CamelCase, of the condition. waits: nothing will change by itself, so that a look after the usual interval,
    or when what is missing comes, is enough.
    """

    def __init__(self, reason: str, message: str, *, waits: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.waits = waits


@dataclass(frozen=True, slots=True)
class SecretContent:
    """A Secret as it was at one state."""

    state: SecretState
    data: Mapping[str, Secret] = field(repr=False)


class Sources:
    """Reads them. Raises `Unmet` for what is missing, and else `ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def secret(self, namespace: str, name: str) -> SecretContent:
        """All keys of a Secret, decoded."""
        try:
            raw = self._api.get(SECRETS, namespace, name)
        except ApiNotFound:
            raise Unmet("SecretMissing", f"Secret {name} is not there") from None
        except ApiForbidden:
            raise _not_permitted("secrets", namespace) from None
        meta = read_meta(raw)
        try:
            data = {
                key: Secret(base64.b64decode(str(value), validate=True))
                for key, value in sorted((raw.get("data") or {}).items())
            }
        except (binascii.Error, UnicodeEncodeError):
            raise Unmet("SecretUnreadable", f"Secret {name} holds a value that is not base64") from None
        return SecretContent(SecretState(meta.uid, meta.resource_version), data)

    def secret_value(self, namespace: str, ref: KeyRef) -> Secret:
        """One key of a Secret."""
        data = self.secret(namespace, ref.name).data
        if ref.key is None or ref.key not in data:
            raise Unmet("SecretKeyMissing", f"Secret {ref.name} has no key {ref.key}")
        return data[ref.key]

    def config_map(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """All keys of a ConfigMap, also those of `binaryData`."""
        try:
            raw = self._api.get(CONFIG_MAPS, namespace, name)
        except ApiNotFound:
            raise Unmet("ConfigMapMissing", f"ConfigMap {name} is not there") from None
        except ApiForbidden:
            raise _not_permitted("configmaps", namespace) from None
        found = {key: str(value).encode() for key, value in (raw.get("data") or {}).items()}
        for key, value in (raw.get("binaryData") or {}).items():
            found[key] = base64.b64decode(str(value))
        return dict(sorted(found.items()))

    def config_map_value(self, namespace: str, ref: KeyRef) -> bytes:
        """One key of a ConfigMap."""
        data = self.config_map(namespace, ref.name)
        if ref.key is None or ref.key not in data:
            raise Unmet("ConfigMapKeyMissing", f"ConfigMap {ref.name} has no key {ref.key}")
        return data[ref.key]

    def bundle(self, namespace: str, ca: CaBundle) -> bytes:
        """Certificates in PEM."""
        if ca.config_map_ref is not None:
            return self.config_map_value(namespace, ca.config_map_ref)
        if ca.secret_ref is not None:
            return self.secret_value(namespace, ca.secret_ref).reveal()
        raise Unmet("CaMissing", "caBundle names neither a ConfigMap nor a Secret")


def _not_permitted(what: str, namespace: str) -> Unmet:
    return Unmet(
        "NotPermitted",
        f"the controller has no right to get {what} in namespace {namespace}: see k8s/controller/rbac.yaml",
        waits=False,
    )
