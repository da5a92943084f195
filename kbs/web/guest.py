"""The guest's routes: auth, attest, and the release door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache

from kbs.audit.gate import Decided
from kbs.handshake.cookie import COOKIE_NAME
from kbs.handshake.service import Handshakes, Opened, TokenAnswer
from kbs.lockstep import Steps, alone
from kbs.plugins.model import Access as PluginAccess
from kbs.plugins.model import Plugin
from kbs.protocol.rcar import encode_token_answer
from kbs.release.service import Release
from kbs.web.model import Access, Call, Deferred, Family, Handler, HttpResponse, Limit, Outcome, Route

_JSON = "application/json"


def routes(handshakes: Handshakes, release: Release, plugins: Mapping[str, Plugin]) -> Iterable[Route]:
    """Rows for auth, attest, and each way guests may use a plugin."""
    yield Route("POST", "/kbs/v0/auth", Access.PUBLIC, _auth(handshakes), family=Family.AUTH)
    yield Route(
        "POST",
        "/kbs/v0/attest",
        Access.HANDSHAKE,
        _attest(handshakes),
        limit=Limit.ATTEST,
        family=Family.ATTEST,
        audit="evidence.accepted",
    )
    handler = _release(handshakes, release)
    for name, plugin in plugins.items():
        for method, guard in plugin.guards().items():
            if guard.access is PluginAccess.TOKEN:
                yield Route(method, f"/kbs/v0/{name}/**", Access.TOKEN, handler, audit="release.granted")


def _auth(handshakes: Handshakes) -> Handler:
    def auth(call: Call) -> Outcome:
        opened = handshakes.challenge(call.request.body)
        if isinstance(opened, Opened):
            return _challenge_response(opened)
        return Deferred(lambda: _challenge_response(opened()))

    return auth


def _attest(handshakes: Handshakes) -> Handler:
    def attest(call: Call) -> Steps[Outcome]:
        request = call.request
        admitted = yield from handshakes.admit(request.body, request.cookie, decision=call.decision, peer=request.peer)
        if isinstance(admitted, TokenAnswer):
            return _token_response(admitted)
        if handshakes.blocks(admitted):
            return Deferred(lambda: alone(handshakes.judge(admitted)).map(_token_response))
        yield
        return (yield from handshakes.judge(admitted)).map(_token_response)

    return attest


def _release(handshakes: Handshakes, release: Release) -> Handler:
    def resource(call: Call) -> Steps[Outcome]:
        request = call.request
        token = handshakes.token_of(request.cookie) or _bearer(request.authorization)
        target = call.target.collapsed()  # `//repo/type/tag` of stand-alone attesters (kbs-protocol 1.4)

        def decide() -> Steps[Decided[bytes]]:
            return release.release(
                request.method,
                target,
                request.body,
                token,
                decision=call.decision,
                peer=request.peer,
                pod_token=request.pod_token,
            )

        if release.blocks(target, request.pod_token):
            return Deferred(lambda: alone(decide()).map(_sealed_response))
        return (yield from decide()).map(_sealed_response)

    return resource


def _bearer(authorization: str | None) -> str | None:
    """The token after the case-sensitive scheme and one space; None for another scheme or nothing after it."""
    if authorization is None or not authorization.startswith("Bearer "):
        return None
    return authorization[7:] or None


def _challenge_response(opened: Opened) -> HttpResponse:
    return HttpResponse(200, opened.message, _JSON, (_set_cookie(opened.cookie, opened.expires),))


def _sealed_response(sealed: bytes) -> HttpResponse:
    return HttpResponse(200, sealed, _JSON)


def _token_response(answer: TokenAnswer) -> HttpResponse:
    return HttpResponse(200, encode_token_answer(answer.token), _JSON, (_set_cookie(answer.cookie, answer.expires),))


def _set_cookie(value: str, expires: datetime) -> tuple[str, str]:
    """Attributes as the field knows them: `Expires` only, so that the jar keeps one cookie (kbs-protocol 2.6)."""
    return ("Set-Cookie", f"{COOKIE_NAME}={value}; Expires={_http_date(int(expires.timestamp()))}")


@lru_cache(maxsize=16)  # many cookies end in the same second
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
