"""The plugin port: what answers behind the release door, and for administrators beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from kbs.secret import Secret


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
class PluginRequest:
    """One request, after token and policy, or after admin authentication.

    segments: the decoded path below the plugin's name. expected: version from `If-Match`, when sent (0: must not
    exist). author: who writes, for the version's metadata; None for guests.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes = field(repr=False, default=b"")
    expected: int | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class PluginAnswer:
    """payload: secret bytes for a guest (always sealed before they leave) or public bytes for an administrator."""

    payload: Secret
    version: int | None = None
    action: str | None = None  # for the audit record of an admin request: write, delete


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
