"""Resources in Vault or OpenBao, secrets engine KV, version 1 or 2 (extra `vault`).

A resource `repository/type/tag` is the secret `<mount>/<path>/repository/type/tag`, one to one. Its bytes are one
member of that secret, `data` unless set otherwise. Read as in kbs-protocol 8.1: text is its UTF-8 octets, an array of
octets those octets, any other JSON its JSON text. Written as an array of octets, which the reference reads too.
Sources: Vault HTTP API, "KV secrets engine version 1" and "version 2".
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import hvac
from hvac import exceptions

from kbs import config
from kbs.errors import ConfigInvalid, MalformedMessage, NameNotAllowed, StorageUnavailable, VersionConflict
from kbs.plugins.resource.backends.vault_session import ServerSettings, VaultSession
from kbs.plugins.resource.model import Backend, StoreContext, StoreRefuses
from kbs.protocol.resource_path import parse as parse_path
from kbs.storage.model import Entry, Record

_MOUNT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_MAX_LISTS: Final = 500  # questions for one list
_MAX_NAMES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings(ServerSettings):
    """Options of `type = "vault"`."""

    kv: int = 2
    mount: str = "secret"
    path: str = ""
    field: str = "data"


def build(context: StoreContext) -> Backend:
    """A store from its options.

    Raises:
        ConfigInvalid: unknown or contradicting options.
    """
    settings = config.structure(context.options, VaultSettings, context.where)
    if not _MOUNT.fullmatch(settings.mount) or (settings.path and not _MOUNT.fullmatch(settings.path)):
        raise ConfigInvalid(f"settings: {context.where}: mount and path are names with / between them, not around them")
    if not settings.field:
        raise ConfigInvalid(f"settings: {context.where}.field is empty")
    if settings.kv not in (1, 2):
        raise ConfigInvalid(f"settings: {context.where}.kv: 1 or 2")
    server = ServerSettings(**{each.name: getattr(settings, each.name) for each in fields(ServerSettings)})
    kind = VaultV2 if settings.kv == 2 else VaultV1
    return kind(settings, VaultSession(server, context), context.prefix)


class _Vault(ABC):
    """What both versions share."""

    remote = True

    def __init__(self, settings: VaultSettings, session: VaultSession, prefix: str) -> None:
        self._settings = settings
        self._session = session
        self._prefix = prefix

    def _place(self, name: str) -> str:
        """Where a name is below the mount. The grammar is checked again: a name that is none never goes out."""
        try:
            path = str(parse_path(name.split("/")))
        except NameNotAllowed:
            raise StoreRefuses("no name of a resource") from None
        return f"{self._settings.path}/{path}" if self._settings.path else path

    def _bytes(self, members: Any) -> bytes:
        if not isinstance(members, Mapping):
            raise _garbage("no members")
        if self._settings.field not in members:
            raise StoreRefuses(f"the secret there has no member {self._settings.field!r}")
        value = members[self._settings.field]
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list) and all(type(each) is int and 0 <= each < 256 for each in value):
            return bytes(value)
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def _members(self, value: bytes) -> Mapping[str, Any]:
        return {self._settings.field: list(value)}

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names below this store's prefix; one question for each repository and type."""
        root = self._prefix.rsplit("/", 1)[0] + "/" if "/" in self._prefix else ""
        found: list[str] = []
        folders, asked = [root], 0
        while folders:
            folder = folders.pop()
            asked += 1
            if asked > _MAX_LISTS or len(found) > _MAX_NAMES:
                raise MalformedMessage("the store has too many names: ask for a longer prefix")
            depth = folder.count("/")
            for name in self._list(folder):
                whole = folder + name
                if depth < 2 and name.endswith("/"):
                    if whole.startswith(prefix) or prefix.startswith(whole):
                        folders.append(whole)
                elif depth == 2 and not name.endswith("/") and whole.startswith(prefix):
                    found.append(whole)
        fitting = [name for name in found if name.startswith(self._prefix) and _is_name(name)]
        return [Entry(name, 0, {}) for name in sorted(fitting)]

    def _list(self, folder: str) -> Sequence[str]:
        base = "/".join(part for part in (self._settings.path, folder.rstrip("/")) if part)
        answer = self._asked(lambda client: self._engine(client).list_secrets(base, self._settings.mount))
        if answer is None:
            return ()
        names = _at(answer, "data", "keys")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _garbage("no list of names")
        return names

    def _asked(self, question: Callable[[hvac.Client], Any]) -> Any:
        """What the store answers; None: nothing there. A 404 that gives a reason is not about the secret."""
        try:
            return self._session.ask(question)
        except exceptions.InvalidPath as err:
            if err.errors:
                raise StoreRefuses("404: no secrets engine of this version is mounted there") from None
            return None
        except exceptions.InvalidRequest:
            raise StoreRefuses("400: the store does not accept it") from None

    @abstractmethod
    def _engine(self, client: hvac.Client) -> Any:
        """hvac's interface of this version."""


class VaultV1(_Vault):
    """KV version 1: one value a name, no numbers, no compare-and-set."""

    creates_once = False

    def _engine(self, client: hvac.Client) -> Any:
        return client.secrets.kv.v1

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The value there is."""
        if version is not None:
            raise MalformedMessage("the store of this resource keeps no versions")
        place, mount = self._place(name), self._settings.mount
        answer = self._asked(lambda client: self._engine(client).read_secret(place, mount))
        if answer is None:
            return None
        return Record(name, 0, {}, self._bytes(_at(answer, "data")))

    def put(self, name: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None) -> int:
        """Overwrite. meta has no place in this store: the audit log says who wrote."""
        del meta
        if expected is not None:
            raise MalformedMessage("the store of this resource keeps no versions: leave If-Match away")
        place, mount, members = self._place(name), self._settings.mount, self._members(value)
        _written(
            self._session,
            lambda client: self._engine(client).create_or_update_secret(place, members, "POST", mount),
        )
        return 0

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove the value."""
        if expected is not None:
            raise MalformedMessage("the store of this resource keeps no versions: leave If-Match away")
        place, mount = self._place(name), self._settings.mount
        if self._asked(lambda client: self._engine(client).read_secret(place, mount)) is None:
            return False
        _written(self._session, lambda client: self._engine(client).delete_secret(place, mount))
        return True

    def history(self, name: str) -> Sequence[Entry]:
        """One entry without a number, or none."""
        return [] if self.get(name) is None else [Entry(name, 0, {})]


class VaultV2(_Vault):
    """KV version 2: numbers and compare-and-set are the store's own. After `delete` numbers begin at 1 again."""

    creates_once = True

    def _engine(self, client: hvac.Client) -> Any:
        return client.secrets.kv.v2

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The current version, or a past one that was not deleted in the store."""
        if version is not None and version < 1:  # to the store 0 would be "the current one"
            return None
        place, mount = self._place(name), self._settings.mount
        answer = self._asked(
            lambda client: self._engine(client).read_secret_version(
                place, version, mount, raise_on_deleted_version=True
            )
        )
        if answer is None:
            return None
        metadata = _at(answer, "data", "metadata")
        return Record(name, _number(metadata), _times(metadata), self._bytes(_at(answer, "data", "data")))

    def put(self, name: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None) -> int:
        """Write the next version. meta has no place in this store: the audit log says who wrote."""
        del meta
        place, mount, members = self._place(name), self._settings.mount, self._members(value)
        answer = _written(
            self._session,
            lambda client: self._engine(client).create_or_update_secret(place, members, expected, mount),
        )
        if not isinstance(answer, Mapping):  # an engine of version 1 takes any path, and says no more than 204
            raise StoreRefuses("the secrets engine mounted there is not of version 2")
        return _number(_at(answer, "data"))

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Remove all versions and metadata. The comparison with `expected` is a question of its own, before."""
        current = self.get(name)
        if current is None:
            if expected:
                raise VersionConflict("there is no current version")
            return False
        if expected is not None and current.version != expected:
            raise VersionConflict("another version is current")
        place, mount = self._place(name), self._settings.mount
        _written(self._session, lambda client: self._engine(client).delete_metadata_and_all_versions(place, mount))
        return True

    def history(self, name: str) -> Sequence[Entry]:
        """Versions that are neither deleted nor destroyed."""
        place, mount = self._place(name), self._settings.mount
        answer = self._asked(lambda client: self._engine(client).read_secret_metadata(place, mount))
        if answer is None:
            return []
        versions = _at(answer, "data", "versions")
        if not isinstance(versions, Mapping):
            raise _garbage("no versions")
        kept = []
        for number, metadata in versions.items():
            if not isinstance(metadata, Mapping) or not number.isdecimal():
                raise _garbage("a version")
            if not metadata.get("destroyed") and not metadata.get("deletion_time"):
                kept.append(Entry(name, int(number), _times(metadata)))
        return sorted(kept, key=lambda entry: entry.version)


def _written(session: VaultSession, change: Any) -> Any:
    """Make a change; an answer that is neither 200 with JSON nor 204 did not make it."""
    try:
        answer = session.ask(change)
    except exceptions.InvalidPath:
        raise StoreRefuses("404 to a change: no secrets engine of this version is mounted there") from None
    except exceptions.InvalidRequest as err:
        if any("check-and-set" in str(text) for text in err.errors or ()):
            raise VersionConflict("another version is current") from None
        raise StoreRefuses("400: the store does not accept it") from None
    if not isinstance(answer, Mapping) and getattr(answer, "status_code", None) != 204:
        raise _garbage(f"status {getattr(answer, 'status_code', None)}")
    return answer


def _at(answer: Any, *members: str) -> Any:
    for member in members:
        if not isinstance(answer, Mapping) or member not in answer:
            raise _garbage(f"no member {member}")
        answer = answer[member]
    return answer


def _number(metadata: Any) -> int:
    number = _at(metadata, "version")
    if type(number) is not int or number < 1:
        raise _garbage("no version number")
    return number


def _times(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    created = metadata.get("created_time")
    return {"time": created} if isinstance(created, str) else {}


def _is_name(name: str) -> bool:
    try:
        parse_path(name.split("/"))
    except NameNotAllowed:
        return False
    return True


def _garbage(what: str) -> StorageUnavailable:
    detail = f"Vault answers in another shape than its API describes: {what}"
    return StorageUnavailable("the store of this resource does not answer", operator_detail=detail)
