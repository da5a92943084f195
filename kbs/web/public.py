"""Routes for everybody: health, the JWK set, OIDC discovery, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kbs.tokens.keys import KeyRing
from kbs.web.metrics import CONTENT_TYPE, Metrics
from kbs.web.model import Access, Call, Handler, HttpResponse, Listener, Route

JWKS_PATH = "/.well-known/jwks.json"


def routes(
    *,
    keys: KeyRing,
    public_url: str | None,
    ready: Callable[[], Mapping[str, Any]],
    metrics: Metrics,
) -> Iterable[Route]:
    """Rows outside `/kbs/v0/`. ready: raises `DependencyFault` while this process cannot serve."""
    yield Route("GET", "/healthz", Access.PUBLIC, _health, listener=Listener.ANY)
    yield Route("GET", "/readyz", Access.PUBLIC, _ready(ready), listener=Listener.PROBE)
    yield Route("GET", JWKS_PATH, Access.PUBLIC, lambda _: _json(keys.jwks()))
    if public_url is not None:
        document = {
            "issuer": public_url,
            "jwks_uri": public_url.rstrip("/") + JWKS_PATH,
            "id_token_signing_alg_values_supported": [keys.signing.alg],
        }
        yield Route("GET", "/.well-known/openid-configuration", Access.PUBLIC, lambda _: _json(document))

    def exposition(_: Call) -> HttpResponse:
        return HttpResponse(200, metrics.exposition(), CONTENT_TYPE)

    yield Route("GET", "/metrics", Access.PUBLIC, exposition, listener=Listener.METRICS)


def document_route(path: str, document: Callable[[], Mapping[str, Any]]) -> Route:
    """What a plugin publishes."""
    return Route("GET", path, Access.PUBLIC, lambda _: _json(document()))


def _health(_: Call) -> HttpResponse:
    return HttpResponse(200)


def _ready(ready: Callable[[], Mapping[str, Any]]) -> Handler:
    def answer(_: Call) -> HttpResponse:
        return _json(ready())

    return answer


def _json(document: Mapping[str, Any]) -> HttpResponse:
    body = json.dumps(document, separators=(",", ":")).encode()
    return HttpResponse(200, body, "application/json")
