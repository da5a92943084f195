"""Requests, responses and routes, free of any framework.

What is made anew for each request is a `Struct`, which takes a tenth of the time of a frozen dataclass to make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from kbs.admin.authorization import Admin, Permission
from kbs.audit.gate import Decided
from kbs.errors import ConfigInvalid
from kbs.lockstep import Steps
from kbs.protocol.target import Target


class Access(StrEnum):
    """Who may call a route."""

    PUBLIC = "public"
    HANDSHAKE = "handshake"  # the cookie of an open handshake, checked by the use case
    TOKEN = "token"  # noqa: S105 - an attestation token, checked by the release door
    ADMIN = "admin"  # an admin credential with the route's permission


class Limit(StrEnum):
    """Which setting bounds the body."""

    ATTEST = "max_attest_body"
    RESOURCE = "max_resource_body"
    STATEMENT = "max_statement_body"
    OTHER = "max_body"


class Family(StrEnum):
    """Decides the wire name and the wording of an error."""

    AUTH = "auth"
    ATTEST = "attest"
    GUEST = "guest"
    ADMIN = "admin"


class Listener(StrEnum):
    """Where a route answers when listeners are separate."""

    GUEST = "guest"
    ADMIN = "admin"
    METRICS = "metrics"
    PROBE = "probe"  # on the one for metrics, once that is set; until then everywhere
    ANY = "any"


class HttpRequest(Struct, frozen=True):
    """One request as received.

    target: path and query exactly as on the wire. `peer` is the address, for the record only.
    cookie: value of kbs-session-id. pod_token: `Kubernetes-Pod-Token`, which the release door looks at.
    """

    method: str
    target: str
    cookie: str | None
    authorization: str | None
    if_match: str | None
    if_none_match: str | None
    body: bytes
    peer: str | None
    pod_token: str | None = None

    def __repr__(self) -> str:
        """Nothing that is secret, nor the body."""
        return f"HttpRequest(method={self.method!r}, target={self.target!r}, peer={self.peer!r})"


class HttpResponse(Struct, frozen=True):
    """One answer. content_type None: no such header."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Without the body and the headers, of which one sets the cookie."""
        return f"HttpResponse(status={self.status}, content_type={self.content_type!r})"


class Call(Struct, frozen=True):
    """What a handler is given: the request, its decoded target, and who was let through."""

    request: HttpRequest
    target: Target
    decision: str
    admin: Admin | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deferred:
    """Work that takes long or may wait on something outside this process: an event loop runs it in a thread."""

    work: Callable[[], HttpResponse | Decided[HttpResponse]]


Outcome = HttpResponse | Decided[HttpResponse] | Deferred
"""An answer that decides nothing, a decision that needs its record first, or work that leads to one."""

Handler = Callable[[Call], Outcome | Steps[Outcome]]
"""Runs one use case, or leaves it to be run in steps. Raises `KbsError` for what needs no record; everything decided
comes as `Decided`.
"""


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. A route that is not in the table does not exist.

    template: path; a segment `*` takes one segment, a last segment `**` the rest of the path.
    audit: kind of the event that its decisions leave, or None where nothing is decided.
    permission: for ADMIN. changes: an ADMIN route that changes something.
    """

    method: str
    template: str
    access: Access
    handler: Handler
    limit: Limit = Limit.OTHER
    family: Family = Family.GUEST
    listener: Listener = Listener.GUEST
    audit: str | None = None
    permission: Permission | None = None
    changes: bool = False

    def __post_init__(self) -> None:
        if (self.access is Access.ADMIN) != (self.permission is not None):
            raise ConfigInvalid(f"{self.method} {self.template}: an admin route, and no other, names a permission")
        if self.access is not Access.PUBLIC and self.audit is None:
            raise ConfigInvalid(f"{self.method} {self.template}: what is decided here leaves no record")
        if self.access is Access.ADMIN and self.changes != (self.method != "GET"):
            raise ConfigInvalid(f"{self.method} {self.template}: changes are recorded before they are made")
