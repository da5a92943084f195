"""From a request to its answer, for every framework alike: route, guards, handler, audit, problem.

An edge (Flask, ASGI) does four things: `plan` before it reads the body, `prepare` with the body, opens the decision
through the audit gate, and `problem` for what was refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from msgspec import Struct

from kbs.admin.authentication import AdminAuthenticator
from kbs.admin.authorization import Admin, authorize
from kbs.audit.events import AdminRefused, AdminRequested, shortened
from kbs.audit.gate import Decided
from kbs.config import ServerSettings
from kbs.errors import (
    AdminForbidden,
    AdminUnauthenticated,
    AuditUnavailable,
    ConfigInvalid,
    KbsError,
    MethodNotAllowed,
    PluginNotFound,
    RouteNotFound,
    ServerFault,
)
from kbs.lockstep import Steps
from kbs.protocol.target import Target, canonical_admin_path, split_target
from kbs.web.model import Access, Call, Family, HttpRequest, HttpResponse, Listener, Outcome, Route
from kbs.web.problems import render
from kbs.web.rates import HandshakeRates

_LOG = logging.getLogger("kbs.web")
_PREFIX = "/kbs/v0/"
_NO_TARGET = Target("", (), {})
_HANDSHAKE = frozenset({Family.AUTH, Family.ATTEST})
METHODS = ("GET", "POST", "PUT", "DELETE")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request will meet: its route and how many octets of body may be read for it."""

    route: Route
    target: Target
    parameters: tuple[str, ...]
    max_body: int


class Prepared(Struct, frozen=True):
    """A handler's outcome with what is needed to word a refusal. target: as on the wire."""

    outcome: Outcome | Steps[Outcome] | KbsError
    decision: str
    target: str


class RouteTable:
    """Finds routes. Built once; look-ups of the hot routes are one dictionary access."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: Sequence[Route] = tuple(routes)
        self._fixed: dict[tuple[str, str], Route] = {}
        self._named: dict[tuple[str, str], Route] = {}
        self._deep: list[tuple[tuple[str, ...], Route]] = []
        for route in self.routes:
            name, _, rest = route.template.removeprefix(_PREFIX).partition("/")
            if not route.template.startswith(_PREFIX):
                self._fixed[route.method, route.template] = route
            elif rest in ("", "**"):
                if (route.method, name) in self._named:
                    raise ConfigInvalid(f"two routes for {route.method} {name}")
                self._named[route.method, name] = route
            else:
                self._deep.append(((name, *rest.split("/")), route))

    def fixed(self, method: str, path: str) -> Route | None:
        """A route outside `/kbs/v0/`."""
        return self._fixed.get((method, path))

    def allowed(self, path: str) -> tuple[str, ...]:
        """Methods of a path outside `/kbs/v0/`."""
        return tuple(sorted(method for method, template in self._fixed if template == path))

    def find(self, method: str, target: Target) -> tuple[Route, tuple[str, ...]] | None:
        """A route below `/kbs/v0/` and what its `*` segments hold."""
        route = self._named.get((method, target.plugin))
        if route is not None and (route.template.endswith("/**") or not target.segments):
            return route, target.segments
        segments = (target.plugin, *target.segments)
        for template, deep in self._deep:
            if deep.method == method:
                parameters = _match(template, segments)
                if parameters is not None:
                    return deep, parameters
        return None

    def methods(self, target: Target) -> tuple[str, ...]:
        """Methods that some route of this path takes."""
        return tuple(method for method in METHODS if self.find(method, target) is not None)


def _match(template: tuple[str, ...], segments: tuple[str, ...]) -> tuple[str, ...] | None:
    parameters: list[str] = []
    for index, part in enumerate(template):
        if part == "**":
            return (*parameters, *segments[index:]) if len(segments) > index else None
        if index >= len(segments):
            return None
        if part == "*":
            parameters.append(segments[index])
        elif part != segments[index]:
            return None
    return tuple(parameters) if len(segments) == len(template) else None


class Dispatcher:
    """The guards and the way through them."""

    def __init__(
        self,
        *,
        table: RouteTable,
        plugins: Mapping[str, object],
        authenticator: AdminAuthenticator,
        record: Callable[[Sequence[AdminRequested]], None],
        server: ServerSettings,
        random: Callable[[int], bytes],
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self.table = table
        self._plugins = plugins
        self._authenticator = authenticator
        self._record = record
        self._server = server
        self._random = random
        self._admin_apart = server.admin_listen is not None
        self._metrics_apart = server.metrics_listen is not None
        self._rates = HandshakeRates(
            per_source=server.max_handshake_rate_per_source, total=server.max_handshake_rate, ticks=ticks
        )

    def plan(self, method: str, raw_target: str, listener: Listener = Listener.ANY) -> Plan:
        """Route a request before its body is read.

        Raises:
            RouteNotFound, PluginNotFound, MethodNotAllowed, MalformedMessage (an admin path that is not canonical).
        """
        if not raw_target.startswith(_PREFIX):
            return self._plan_fixed(method, raw_target.partition("?")[0], listener)
        target = split_target(raw_target)
        if method not in METHODS:
            raise MethodNotAllowed(f"{method} is not allowed here", allow=METHODS)
        found = self.table.find(method, target)
        if found is None:
            raise self._nothing_found(target)
        route, parameters = found
        self._check_listener(route, listener)
        return Plan(route, target, parameters, getattr(self._server, route.limit.value))

    def admit(self, plan: Plan, peer: str | None) -> None:
        """Let a request in, before its body is read.

        Raises:
            RateLimited: too many handshakes.
        """
        if plan.route.family in _HANDSHAKE:
            self._rates.admit(peer)

    def prepare(self, plan: Plan, request: HttpRequest) -> Prepared:
        """Run the guards and the handler, but for steps, which the edge runs. Never raises; steps may."""
        decision = self._random(16).hex()
        route = plan.route
        outcome: Outcome | Steps[Outcome] | KbsError
        try:
            admin = self._admit_admin(plan, request, decision) if route.access is Access.ADMIN else None
            outcome = route.handler(Call(request, plan.target, decision, admin, plan.parameters))
        except KbsError as err:
            outcome = err
        except _Refused as refused:
            outcome = refused.decided
        except Exception as err:  # noqa: BLE001 - the wall of the web: a bug is a 500 that says nothing
            outcome = bug(err)
        return Prepared(outcome, decision, request.target)

    def problem(
        self,
        err: KbsError,
        prepared: Prepared | None = None,
        *,
        recorded: bool = False,
        family: Family = Family.GUEST,
    ) -> HttpResponse:
        """Word a refusal and log it. recorded: the decision id is in the audit log and goes to the peer."""
        instance = self._random(8).hex()
        path = prepared.target.partition("?")[0] if prepared else ""
        if isinstance(err, AuditUnavailable):
            recorded = False
        decision = prepared.decision if prepared and recorded else None
        response = render(err, family=family, path=path, instance=instance, decision=decision)
        level = logging.ERROR if response.status >= 500 else logging.INFO
        _LOG.log(
            level,
            "refused",
            extra={
                "members": {
                    "status": response.status,
                    "reason": err.reason,
                    "detail": shortened(err.operator_detail or str(err)),
                    "path": shortened(path),
                    "instance": instance,
                    "decision": decision,
                }
            },
            exc_info=err.__cause__ if isinstance(err, ServerFault) and err.__cause__ else None,
        )
        return response

    def _plan_fixed(self, method: str, path: str, listener: Listener) -> Plan:
        route = self.table.fixed(method, path)
        if route is None:
            allowed = self.table.allowed(path)
            if allowed:
                raise MethodNotAllowed(f"{method} is not allowed here", allow=allowed)
            raise RouteNotFound("no such path")
        self._check_listener(route, listener)
        return Plan(route, _NO_TARGET, (), self._server.max_body)

    def _check_listener(self, route: Route, listener: Listener) -> None:
        """Metrics answer on their own listener only; admin routes and the probe too, once one is set."""
        if route.listener is Listener.PROBE and (listener is Listener.METRICS or not self._metrics_apart):
            return
        if Listener.ANY in (listener, route.listener) or route.listener is listener:
            return
        if route.listener is Listener.ADMIN and listener is Listener.GUEST and not self._admin_apart:
            return
        raise RouteNotFound("no such path")

    def _nothing_found(self, target: Target) -> KbsError:
        methods = self.table.methods(target)
        if target.plugin in self._plugins and methods:
            return MethodNotAllowed("this method is not allowed here", allow=methods)
        return PluginNotFound(f"Plugin {target.plugin} not found")

    def _admit_admin(self, plan: Plan, request: HttpRequest, decision: str) -> Admin:
        path = request.target.partition("?")[0]
        route = plan.route
        admin: Admin | None = None
        try:
            admin = self._authenticator.authenticate(request.authorization)
            if path.startswith(_PREFIX):
                canonical_admin_path(path)
            assert route.permission is not None
            authorize(admin, request.method, path, route.permission)
        except (AdminUnauthenticated, AdminForbidden) as err:
            event = AdminRefused(
                decision=decision,
                actor=admin.name if admin else None,
                method=request.method,
                path=shortened(path),
                reason=err.reason,
                detail=shortened(err.operator_detail or str(err)),
                peer=request.peer,
            )
            raise _Refused(Decided((event,), err)) from err
        if route.changes:  # on record before the change, so that none goes unrecorded
            self._record(
                [
                    AdminRequested(
                        decision=decision,
                        actor=admin.name,
                        method=request.method,
                        path=shortened(path),
                        peer=request.peer,
                    )
                ]
            )
        return admin


def bug(err: Exception) -> ServerFault:
    """What a peer may see of an exception that nobody raised on purpose: nothing. The log gets class and place."""
    fault = ServerFault("internal error", operator_detail=f"unexpected {type(err).__name__}")
    fault.__cause__ = err
    return fault


class _Refused(Exception):
    def __init__(self, decided: Decided[HttpResponse]) -> None:
        super().__init__()
        self.decided = decided
