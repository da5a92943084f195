"""The API server as a port: objects are JSON as it is sent, errors say what a caller can do about them.

The port is small on purpose: what is not here, nobody in this package does to a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kbs.errors import DependencyFault
from kbs.k8s.model import GROUP, KINDS, VERSION, Kind

Object = Mapping[str, Any]
"""An object of the API as JSON. May hold a Secret's bytes: never logged, never part of an error."""


@dataclass(frozen=True, slots=True)
class ApiKind:
    """A kind as requests name it. group: empty for the core."""

    group: str
    version: str
    plural: str

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/api/{self.version}" if not self.group else f"/apis/{self.group}/{self.version}"

    @property
    def label(self) -> str:
        """For people: `secrets`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


SECRETS: Final = ApiKind("", "v1", "secrets")
CONFIG_MAPS: Final = ApiKind("", "v1", "configmaps")
EVENTS: Final = ApiKind("", "v1", "events")
LEASES: Final = ApiKind("coordination.k8s.io", "v1", "leases")


def api_kind(kind: Kind[Any, Any]) -> ApiKind:
    """One of the five."""
    return ApiKind(GROUP, VERSION, kind.plural)


OURS: Final[Mapping[str, ApiKind]] = {kind.name: api_kind(kind) for kind in KINDS}
"""The five by the name of the kind."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A list at one moment. resource_version: from where to watch on."""

    items: tuple[Object, ...] = field(repr=False)
    resource_version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a watch. type: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`."""

    type: str
    object: Object = field(repr=False)


class ApiError(DependencyFault):
    """The API server did not do what was asked. The text names verb, kind and place, never content."""


class ApiUnreachable(ApiError):
    """No answer, one cut short, or a fault of the server (5xx, 429). Try later."""


class ApiForbidden(ApiError):
    """A right is missing (403), or the credential is not accepted (401)."""


class ApiNotFound(ApiError):
    """No such object, or no such kind (404)."""


class ApiConflict(ApiError):
    """Somebody else changed or made it first (409): read again."""


class ApiExpired(ApiError):
    """The list or watch cannot go on from there (410): list again."""


class ApiInvalid(ApiError):
    """The object is not taken as it is (400, 413, 422 and what else asking again does not help)."""


class Api(Protocol):
    """Requests to one API server. Safe from several threads. Each raises `ApiError`."""

    def get(self, kind: ApiKind, namespace: str, name: str) -> Object:
        """One object."""

    def list(self, kind: ApiKind, namespace: str | None, *, metadata_only: bool = False) -> Listed:
        """All objects of a namespace, or of all (None). metadata_only: without what they hold."""

    def watch(
        self,
        kind: ApiKind,
        namespace: str | None,
        resource_version: str,
        *,
        metadata_only: bool = False,
        seconds: int = 300,
    ) -> Iterator[Change]:
        """Changes from there on, until the server ends the watch after about `seconds`."""

    def create(self, kind: ApiKind, namespace: str, body: Object) -> Object:
        """A new object."""

    def replace(self, kind: ApiKind, namespace: str, name: str, body: Object) -> Object:
        """PUT: with `metadata.resourceVersion`, only if nobody else changed it."""

    def patch(
        self, kind: ApiKind, namespace: str, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        """Merge patch (RFC 7386): null removes a member, lists are replaced."""

    def delete(self, kind: ApiKind, namespace: str, name: str) -> None:
        """Remove an object."""
