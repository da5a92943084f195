"""The plugin port: what answers behind the release door, and for administrators beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from kbs.clock import Clock
from kbs.config import ResourceSettings
from kbs.protocol.tee_key import TeeKey
from kbs.secret import Secret
from kbs.storage.model import KeyValueStore


class Access(StrEnum):
    """Who may send a kind of request to a plugin. Declared per method, never decided at run time."""

    TOKEN = "token"  # noqa: S105 - an attested guest, through policy; the answer is sealed to its key
    ADMIN = "admin"  # an administrator with the permission the plugin names


@dataclass(frozen=True, slots=True)
class Guard:
    """What guards one method of a plugin. permission: for ADMIN, as in the roles' table."""

    access: Access
    permission: str | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """The attested guest that asks, as its verified token describes it.

    claims: shared between requests; not to be changed. tee_key: the answer is sealed to it. expires: of the token.
    attestation: the token's `jti`, when there is one.
    """

    claims: Mapping[str, Any] = field(repr=False)
    claims_json: bytes = field(repr=False)
    tee_key: TeeKey
    expires: datetime
    attestation: str | None


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the factory of a plugin may use. options: `[plugins.options.NAME]`, not yet checked. data: the folder that
    relative paths in the options are under. resource: the section of that name, for the plugin of that name."""

    store: KeyValueStore
    clock: Clock
    random: Callable[[int], bytes]
    data: Path
    options: Mapping[str, Any]
    resource: ResourceSettings = field(default_factory=ResourceSettings)


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """One request, after token and policy, or after admin authentication.

    segments: the decoded path below the plugin's name. expected: version from `If-Match`, when sent (0: must not
    exist). author: who writes, for the version's metadata; None for guests. guest: who asks; None for administrators.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes = field(repr=False, default=b"")
    expected: int | None = None
    author: str | None = None
    guest: Guest | None = None


@dataclass(frozen=True, slots=True)
class PluginAnswer:
    """payload: secret bytes for a guest (always sealed before they leave) or public bytes for an administrator.

    warnings: what an administrator is told of a change that was made all the same.
    """

    payload: Secret
    version: int | None = None
    action: str | None = None  # for the audit record of an admin request: write, delete
    warnings: tuple[str, ...] = ()


class Plugin(Protocol):
    """One thing that can be released.

    Raises:
        ResourceNotFound, NameNotAllowed, VersionConflict, MethodNotAllowed, DependencyFault.
    """

    blocks: bool
    """True when `handle` may wait on something outside this process."""

    def guards(self) -> Mapping[str, Guard]:
        """Method → guard; a method not listed is not allowed."""

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Answer one guarded request."""


@runtime_checkable
class Publishes(Protocol):
    """A plugin with one document for everybody, outside the release door: nothing secret, such as a trust bundle."""

    public_path: str

    def public_document(self) -> Mapping[str, Any]:
        """Its JSON. Raises `DependencyFault`."""
