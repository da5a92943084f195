"""The Flask application: every route of the table, through the same dispatcher as the fast path."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from kbs.audit import gate
from kbs.audit.events import Event
from kbs.errors import KbsError, MalformedMessage, MethodNotAllowed
from kbs.identity.model import HEADER as POD_TOKEN_HEADER
from kbs.lockstep import alone
from kbs.web.body import check_declared, inflate, too_large
from kbs.web.cookies import session_cookie
from kbs.web.dispatch import METHODS, Dispatcher, Plan, Prepared, bug
from kbs.web.metrics import Metrics
from kbs.web.model import Deferred, HttpRequest, HttpResponse, Listener

_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]


def create_app(
    dispatcher: Dispatcher,
    append: Callable[[Sequence[Event]], None],
    listeners: dict[int, Listener],
    metrics: Metrics,
) -> Flask:
    """Make the application.

    Args:
        append: writes audit events durably (`AuditLog.append`).
        listeners: local port → which routes answer there.
    """
    app = Flask("kbs", static_folder=None)
    app.url_map.merge_slashes = False

    def serve(path: str = "") -> Response:
        del path  # routing is the dispatcher's; Flask's decoded path is not looked at
        return _to_flask(_answer(dispatcher, append, listeners, metrics))

    def refuse(err: HTTPException) -> Response:
        """What Flask itself refuses before a view runs: a method it has never heard of, a host name that is none."""
        if err.code == 405:
            return _to_flask(dispatcher.problem(MethodNotAllowed("this method is not allowed here", allow=METHODS)))
        return _to_flask(dispatcher.problem(MalformedMessage("the request head does not decode")))

    app.register_error_handler(HTTPException, refuse)
    app.add_url_rule("/", "root", serve, methods=_ANY_METHOD, provide_automatic_options=False)
    app.add_url_rule("/<path:path>", "any", serve, methods=_ANY_METHOD, provide_automatic_options=False)
    return app


def _answer(
    dispatcher: Dispatcher,
    append: Callable[[Sequence[Event]], None],
    listeners: dict[int, Listener],
    metrics: Metrics,
) -> HttpResponse:
    target = _raw_target()
    listener = listeners.get(int(request.environ.get("SERVER_PORT") or 0), Listener.GUEST)
    try:
        plan = dispatcher.plan(_method(), target, listener)
    except KbsError as err:
        return dispatcher.problem(err)
    if not plan.route.template.startswith("/kbs"):
        return _dispatch(dispatcher, append, plan, target, metrics)
    start = metrics.begin()
    response = _dispatch(dispatcher, append, plan, target, metrics)
    metrics.end(start, plan.route, response.status)
    return response


def _dispatch(
    dispatcher: Dispatcher, append: Callable[[Sequence[Event]], None], plan: Plan, target: str, metrics: Metrics
) -> HttpResponse:
    prepared: Prepared | None = None
    recorded = False
    try:
        dispatcher.admit(plan, request.remote_addr)
        prepared = dispatcher.prepare(plan, _read(plan, target))
        outcome = alone(prepared.outcome) if isinstance(prepared.outcome, Generator) else prepared.outcome
        if isinstance(outcome, Deferred):
            outcome = outcome.work()
        if isinstance(outcome, KbsError):
            raise outcome
        if isinstance(outcome, HttpResponse):
            return outcome
        recorded = True
        return gate.release(append, outcome)
    except KbsError as err:
        metrics.refused(err)
        return dispatcher.problem(err, prepared, recorded=recorded, family=plan.route.family)
    except Exception as err:  # noqa: BLE001 - the wall of this edge: what no other wall caught is our bug
        fault = bug(err)
        metrics.refused(fault)
        return dispatcher.problem(fault, prepared, family=plan.route.family)


def _method() -> str:
    """As on the wire: methods are case-sensitive (RFC 9110 section 9.1), and Flask's is in upper case."""
    method: str = request.environ["REQUEST_METHOD"]
    return method


def _raw_target() -> str:
    """Path and query as on the wire. Servers name it differently; one that names neither is not one we run under."""
    scope = request.environ.get("asgi.scope")
    if scope is not None:
        query: bytes = scope["query_string"]
        raw: bytes = scope["raw_path"] + (b"?" + query if query else b"")
        return raw.decode("latin-1")
    raw_uri: str = request.environ["RAW_URI"]
    return raw_uri


def _read(plan: Plan, target: str) -> HttpRequest:
    check_declared(request.headers.get("Content-Length"), plan.max_body)
    try:
        body = request.stream.read(plan.max_body + 1)
    except OSError:
        raise MalformedMessage("the body is cut short") from None
    if len(body) > plan.max_body:
        raise too_large(plan.max_body)
    return HttpRequest(
        method=_method(),
        target=target,
        cookie=session_cookie(request.headers.get("Cookie")),
        authorization=request.headers.get("Authorization"),
        if_match=request.headers.get("If-Match"),
        if_none_match=request.headers.get("If-None-Match"),
        body=inflate(body, request.headers.get("Content-Encoding"), plan.max_body),
        peer=request.remote_addr,
        pod_token=request.headers.get(POD_TOKEN_HEADER),
    )


def _to_flask(answer: HttpResponse) -> Response:
    response = Response(answer.body, status=answer.status)
    response.headers.clear()
    response.headers["Content-Length"] = str(len(answer.body))
    if answer.content_type is not None:
        response.headers["Content-Type"] = answer.content_type
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response
