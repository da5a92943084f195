"""Resources in Google Secret Manager (extra `gcp`), over its REST interface: gRPC does not go with forked workers.

A resource `repository/type/tag` is the secret whose id is `<secret_prefix>` and that name with `__` for a slash and
`_XX` for the octet XX of a dot or underscore, one to one. Versions are the store's own numbers. A write that compares
claims the secret by its etag before it adds a version. Source: Secret Manager API v1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import google.auth
import requests
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import secretmanager_v1
from google.oauth2 import service_account
from google.protobuf import json_format

from kbs import config
from kbs.errors import ConfigInvalid, VersionConflict
from kbs.plugins.resource.backends.cloud import (
    MOST_NAMES,
    PerProcess,
    check_timeout,
    check_value,
    checked_name,
    is_name,
    too_many,
    unavailable,
)
from kbs.plugins.resource.model import StoreContext, StoreRefuses
from kbs.storage.model import Entry, Record

_SERVICE: Final = "Google Secret Manager"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9:.-]{0,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9-]{0,64}")
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_ESCAPED: Final = re.compile(r"_(_|[0-9a-f]{2})")
_MOST_NAME: Final = 255  # characters
_MOST: Final = 65_536  # octets
_CLAIM: Final = "kbs-write"  # annotation whose change claims the next write
_REFUSALS: Final = {
    "PERMISSION_DENIED": "the project's policy does not allow it to this broker",
    "INVALID_ARGUMENT": "the store does not accept it",
}
_ENABLED: Final = secretmanager_v1.SecretVersion.State.ENABLED


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSettings:
    """Options of `type = "gcp"`. credentials_file: a service account's; None: application default credentials."""

    project: str
    secret_prefix: str = ""
    endpoint: str | None = None
    credentials_file: Path | None = None
    timeout_seconds: float = 5.0


def build(context: StoreContext) -> GcpBackend:
    """A store from its options.

    Raises:
        ConfigInvalid: unknown or contradicting options.
    """
    settings, where = config.structure(context.options, GcpSettings, context.where), context.where
    if not _PROJECT.fullmatch(settings.project):
        raise ConfigInvalid(f"settings: {where}.project: id or number of a project")
    if not _PREFIX.fullmatch(settings.secret_prefix):
        raise ConfigInvalid(f"settings: {where}.secret_prefix: letters, digits and hyphens")
    if settings.endpoint is not None and not _HOST.fullmatch(settings.endpoint):
        raise ConfigInvalid(
            f"settings: {where}.endpoint: a host, such as secretmanager.europe-west3.rep.googleapis.com"
        )
    check_timeout(settings.timeout_seconds, where)
    return GcpBackend(settings, context.prefix, PerProcess(lambda: _client(settings, context.data)))


def _client(settings: GcpSettings, data: Path) -> Any:
    if settings.credentials_file is None:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    else:
        file = str(data / settings.credentials_file)
        credentials = service_account.Credentials.from_service_account_file(file, scopes=[_SCOPE])  # type: ignore[no-untyped-call]
    options = ClientOptions(api_endpoint=settings.endpoint)
    return secretmanager_v1.SecretManagerServiceClient(
        credentials=credentials, transport="rest", client_options=options
    )


class GcpBackend:
    """`Backend` over one project."""

    remote = True
    creates_once = True

    def __init__(self, settings: GcpSettings, prefix: str, client: PerProcess[Any]) -> None:
        self._settings = settings
        self._prefix = prefix
        self._client = client
        self._parent = f"projects/{settings.project}"
        self._limits: Mapping[str, Any] = {"timeout": settings.timeout_seconds, "retry": None}

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The newest version, or a past one that is enabled."""
        if version == 0:
            return None
        place = f"{self._place(name)}/versions/{version or 'latest'}"
        try:
            answer = self._ask(
                lambda client: client.access_secret_version(request={"name": place}, **self._limits), None
            )
        except _NotInThatState:
            if version is not None:
                return None
            raise StoreRefuses("the newest version is disabled or destroyed") from None
        return None if answer is None else Record(name, _number(answer.name), {}, answer.payload.data)

    def put(self, name: str, value: bytes, *, meta: object, expected: int | None = None) -> int:
        """Add the next version. meta has no place here: the audit log says who wrote."""
        del meta
        check_value(value, _MOST)
        place = self._place(name)
        if expected == 0:
            self._create(place)
        elif expected is not None:
            self._claim(name, place, expected)
        made = self._add(place, value)
        if made is None and expected is None:
            try:
                self._create(place)
            except VersionConflict:
                made = self._add(place, value)  # somebody else made it in this moment
            else:
                made = self._add(place, value)
        if made is None:
            raise VersionConflict("it was deleted in this moment")
        return made

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove the secret with all versions, as it was when compared."""
        place, current = self._place(name), self.get(name)
        if current is None and not expected:
            return False
        if expected is not None and (current is None or current.version != expected):
            raise VersionConflict("another version is current")
        try:
            self._ask(lambda client: client.delete_secret(request={"name": place}, **self._limits), None)
        except _NotInThatState:
            raise StoreRefuses("the store does not accept it") from None
        return True

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names below this store's prefix."""
        request = {"parent": self._parent, "page_size": 1000}
        found: list[str] = []
        for each in self._ask(lambda client: _listed(client.list_secrets(request=request, **self._limits)), []):
            name = self._name(each.name.rsplit("/", 1)[-1])
            if name is not None and name.startswith(self._prefix) and name.startswith(prefix):
                found.append(name)
        return [Entry(name, 0, {}) for name in sorted(found)]

    def history(self, name: str) -> Sequence[Entry]:
        """Versions that are enabled."""
        request = {"parent": self._place(name), "page_size": 1000}
        listed = self._ask(lambda client: _listed(client.list_secret_versions(request=request, **self._limits)), [])
        kept = [
            Entry(name, _number(each.name), {"time": each.create_time.isoformat()})
            for each in listed
            if each.state == _ENABLED
        ]
        return sorted(kept, key=lambda entry: entry.version)

    def _place(self, name: str) -> str:
        plain = checked_name(name).replace("_", "_5f").replace(".", "_2e").replace("/", "__")
        secret = self._settings.secret_prefix + plain
        if len(secret) > _MOST_NAME:
            raise StoreRefuses(f"the name is too long: the store takes {_MOST_NAME} characters")
        return f"{self._parent}/secrets/{secret}"

    def _name(self, secret: str) -> str | None:
        """The resource that a secret is; None if it is none."""
        if not secret.startswith(self._settings.secret_prefix):
            return None
        plain = secret.removeprefix(self._settings.secret_prefix)
        name = _ESCAPED.sub(lambda found: "/" if found[1] == "_" else chr(int(found[1], 16)), plain)
        return name if is_name(name) and self._place(name).endswith(f"/{secret}") else None

    def _create(self, place: str) -> None:
        secret: Any = {"replication": {"automatic": {}}}
        request = {"parent": self._parent, "secret_id": place.rsplit("/", 1)[1], "secret": secret}
        self._ask(lambda client: client.create_secret(request=request, **self._limits), None)

    def _add(self, place: str, value: bytes) -> int | None:
        """The number; None: there is no such secret."""
        request = {"parent": place, "payload": {"data": value}}
        try:
            made = self._ask(lambda client: client.add_secret_version(request=request, **self._limits), None)
        except _NotInThatState:
            raise StoreRefuses("the store does not accept it") from None
        return None if made is None else _number(made.name)

    def _claim(self, name: str, place: str, expected: int) -> None:
        """Of all that saw this version current, one gets the secret's etag changed."""
        secret = self._ask(lambda client: client.get_secret(request={"name": place}, **self._limits), None)
        current = self.get(name)
        if secret is None or current is None or current.version != expected:
            raise VersionConflict("another version is current")
        if secret.annotations.get(_CLAIM) == f"after-{expected}":  # its version is not there yet, or never came
            raise VersionConflict("another write is under way, or was cut off: write without If-Match")
        marks = {**secret.annotations, _CLAIM: f"after-{expected}"}
        request = {
            "secret": {"name": place, "etag": secret.etag, "annotations": marks},
            "update_mask": {"paths": ["annotations"]},
        }
        try:
            self._ask(lambda client: client.update_secret(request=request, **self._limits), None)
        except _NotInThatState:
            raise VersionConflict("another version is being written") from None

    def _ask(self, question: Callable[[Any], Any], absent: Any) -> Any:
        """An answer; `absent` where there is no such secret. Raises also `_NotInThatState`."""
        try:
            return question(self._client())
        except exceptions.GoogleAPICallError as err:
            status = _status(err)
            if status == "NOT_FOUND":
                return absent
            if status in ("FAILED_PRECONDITION", "ABORTED"):
                raise _NotInThatState from None
            if status == "ALREADY_EXISTS":
                raise VersionConflict("there is one already") from None
            if status in _REFUSALS:
                raise StoreRefuses(f"{status}: {_REFUSALS[status]}") from None
            raise unavailable(_SERVICE, status or type(err).__name__) from None
        except json_format.Error:
            raise unavailable(_SERVICE, "an answer of another shape") from None
        except (exceptions.GoogleAPIError, GoogleAuthError, requests.RequestException, OSError, ValueError) as err:
            self._client.drop()
            raise unavailable(_SERVICE, type(err).__name__) from None


class _NotInThatState(Exception):
    """A version is disabled or destroyed, or the etag is another by now."""


def _status(err: exceptions.GoogleAPICallError) -> str:
    """The code by name, which the HTTP status alone does not tell."""
    try:
        status = err.response.json()["error"]["status"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
    return status if isinstance(status, str) and re.fullmatch(r"[A-Z_]{1,32}", status) else ""


def _listed(pages: Any) -> Sequence[Any]:
    found: list[Any] = []
    for each in pages:
        found.append(each)
        if len(found) > MOST_NAMES:
            raise too_many()
    return found


def _number(name: str) -> int:
    text = name.rsplit("/", 1)[-1]
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 53):
        raise unavailable(_SERVICE, "an answer without a version number")
    return int(text)
