"""The REST edge of `rvps serve`: routes, who may call them, and how refusals look.

Paths, bodies and refusals are those of a broker's admin API, so that one client speaks to both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from rvps import rest
from rvps.clock import Clock
from rvps.errors import NotStated, ProviderUnavailable, RvpsError, SenderRefused, StatementUnacceptable
from rvps.rest import Answer
from rvps.server.directory import Directory
from rvps.server.metrics import CONTENT_TYPE, Metrics
from rvps.server.reception import Reception

_LOG = logging.getLogger("rvps.server.web")
_V0: Final = "/kbs/v0/"
_ERRORS: Final = "https://github.com/confidential-containers/kbs/errors/"
ON_BEHALF_OF: Final = "RVPS-On-Behalf-Of"
"""Header of a broker: the administrator who asked it, percent-encoded UTF-8 like `admin:alice%233f2c`."""
_MAX_ISSUER: Final = 256  # characters

_PROBLEMS: Final[dict[type[RvpsError], tuple[int, str]]] = {
    SenderRefused: (401, "AdminAuthAccess"),
    NotStated: (404, "ResourceNotFound"),
    StatementUnacceptable: (422, "RvpsError"),
    ProviderUnavailable: (503, "DependencyUnavailable"),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. target: path and query as on the wire. headers: lower-case names, of repeated ones the last."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False, default_factory=dict)
    body: bytes = field(repr=False, default=b"")


class Web:
    """Answers requests, from several threads."""

    def __init__(
        self, *, reception: Reception, directory: Directory, clock: Clock, metrics: Metrics, insecure: tuple[str, ...]
    ) -> None:
        self._reception = reception
        self._provider = reception.provider
        self._directory = directory
        self._clock = clock
        self._metrics = metrics
        self._insecure = insecure
        self._snapshots = rest.SnapshotAnswers()

    def answer(self, request: Request) -> Answer:
        """Answer one request. Never raises."""
        try:
            found = self._route(request)
        except RvpsError as err:
            status, name = next(row for kind, row in _PROBLEMS.items() if isinstance(err, kind))
            found = problem(status, name, str(err))
        except Exception as err:  # noqa: BLE001 - the wall of this edge: a bug is a 500 that says nothing
            _LOG.error("internal error", exc_info=err)
            found = problem(500, "InternalError", "internal error")
        self._metrics.count("rest", request.method if request.method in _METHODS else "other", str(found.status))
        return found

    def _route(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        if path in _PLAIN and request.method == "GET":
            return _PLAIN[path](self)
        if not path.startswith(_V0):
            return problem(404, "PluginNotFound", "no such path")
        noun, _, rest_of_path = path.removeprefix(_V0).partition("/")
        if noun == "reference-value":
            if request.method == "GET":
                return self._query(_decoded(rest_of_path))
            if request.method == "POST":
                return self._register(request)
            return _not_allowed("GET, POST")
        sub, _, name = rest_of_path.partition("/")
        if noun == "admin" and sub == "reference-values":
            return self._administer(request, name, dict(parse_qsl(query, keep_blank_values=True)))
        return problem(404, "PluginNotFound", "no such path")

    def _administer(self, request: Request, name: str, query: dict[str, str]) -> Answer:
        sender = self._sender(request)
        if (request.method, name) == ("POST", "submit"):  # its signature vouches for it, whoever brings it
            return self._record(rest.submit(self._provider, request.body, self._clock()), sender)
        if sender is None:
            raise SenderRefused("Authorization: Bearer with the text of admin-token or broker-token is needed")
        if request.method == "GET" and name == "snapshot":
            return self._snapshots.answer(
                self._provider.snapshot(self._clock()),
                if_none_match=request.headers.get("if-none-match"),
                accept_encoding=request.headers.get("accept-encoding"),
                a_im=request.headers.get("a-im"),
            )
        if request.method == "GET" and not name:
            return rest.list_values(
                self._provider, self._clock(), name=query.get("name"), prefix=query.get("prefix", "")
            )
        if request.method == "GET" and name == "why":
            return rest.why(self._provider, query.get("name", ""), query.get("value"), self._clock())
        if request.method == "GET" and name == "names":
            return rest.names_of(self._provider, query.get("value"))
        if request.method == "GET" and name == "expiring":
            return rest.expiring(self._provider, query.get("within"), self._clock())
        if request.method == "GET" and name == "misses":
            return rest.misses(self._provider)
        if request.method == "GET" and name == "drift":
            raise NotStated("this provider sees no evidence: ask a broker for what its guests present")
        if request.method == "POST" and name == "dry-run":
            return rest.dry_run(self._provider, request.body, issuer=sender, at=self._clock())
        noun, _, wanted = name.partition("/")
        if noun == "messages" and request.method == "GET":
            return rest.signed_message(self._provider, _decoded(wanted))
        if noun == "statements" and request.method != "DELETE":
            return self._statements(request, wanted, query, sender)
        if request.method == "DELETE":
            wanted = _decoded(name) if name else query.get("name", "")
            return self._record(rest.withdraw(self._provider, wanted, issuer=sender, at=self._clock()), sender)
        return problem(404, "PluginNotFound", "no such path") if name else _not_allowed("DELETE, GET")

    def _statements(self, request: Request, rest_of_path: str, query: dict[str, str], sender: str) -> Answer:
        wanted, _, verb = rest_of_path.partition("/")
        wanted = _decoded(wanted)
        if request.method == "GET" and not wanted:
            return rest.statements(self._provider, self._clock(), state=query.get("state"))
        if request.method == "GET" and not verb:
            return rest.statement(self._provider, wanted, self._clock())
        if request.method == "GET" and verb == "values":
            return rest.stated(self._provider, wanted)
        if request.method == "POST" and verb == "revoke":
            answer = rest.revoke(self._provider, wanted, request.body, issuer=sender, at=self._clock())
            return self._record(answer, sender)
        return _not_allowed("GET, POST")

    def _query(self, name: str) -> Answer:
        try:
            return rest.query(self._provider, name, self._clock())
        except NotStated:
            self._metrics.missed(name)
            raise

    def _register(self, request: Request) -> Answer:
        sender = self._sender(request)
        values = self._reception.receive(rest.message_of(request.body), sender)
        represent = "return=representation" in request.headers.get("prefer", "").replace(" ", "")
        return self._record(rest.registered(values, self._clock(), represent=represent), sender)

    def _sender(self, request: Request) -> str | None:
        """The issuer in whose name a request speaks, or None for a stranger without credential.

        Raises:
            SenderRefused: a credential that is wrong, or a broker that does not say for whom it asks.
        """
        authorization = request.headers.get("authorization")
        if authorization is None:
            return None
        if self._directory.admin.is_in(authorization):
            return f"admin:local#{self._directory.admin.id}"
        if not self._directory.broker.is_in(authorization):
            raise SenderRefused("this token is neither the admin token nor the broker token of this service")
        given = request.headers.get(ON_BEHALF_OF.lower())
        if given is None:
            return f"broker#{self._directory.broker.id}"
        issuer = _decoded(given)
        if not issuer.startswith("admin:") or len(issuer) > _MAX_ISSUER or not issuer.isprintable():
            raise SenderRefused(f"{ON_BEHALF_OF}: not the name of an administrator")
        return issuer

    def _record(self, answer: Answer, sender: str | None) -> Answer:
        if answer.change is not None:
            record_change(answer.change, sender)
        return answer

    def _healthy(self) -> Answer:
        return _json(200, {"alive": True})

    def _ready(self) -> Answer:
        snapshot = self._provider.snapshot(self._clock())
        return _json(200, {"ready": True, "version": snapshot.version, "insecure": list(self._insecure)})

    def _measured(self) -> Answer:
        return Answer(200, self._metrics.text(), CONTENT_TYPE)


_METHODS: Final = frozenset({"GET", "POST", "DELETE"})
_PLAIN: Final[dict[str, Callable[[Web], Answer]]] = {
    "/healthz": Web._healthy,
    "/readyz": Web._ready,
    "/metrics": Web._measured,
}


def record_change(change: rest.Change, sender: str | None) -> None:
    """One line of log for every change, with who asked for it."""
    _LOG.info(
        "changed",
        extra={
            "members": {
                "action": change.action,
                "names": list(change.names[:20]),
                "count": len(change.names),
                "statement": change.statement,
                "sender": sender,
            }
        },
    )


def problem(status: int, name: str, detail: str) -> Answer:
    """A refusal in the field's form (RFC 9457)."""
    document = {"type": _ERRORS + name, "detail": detail, "status": status}
    headers = (("Retry-After", "1"),) if status == 503 else ()
    return Answer(status, json.dumps(document).encode(), "application/problem+json", headers)


def _not_allowed(methods: str) -> Answer:
    refusal = problem(405, "MethodNotAllowed", "this method is not allowed here")
    return Answer(refusal.status, refusal.body, refusal.content_type, (("Allow", methods),))


def _json(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document).encode())


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise NotStated("a name that is not UTF-8") from None
