"""The webhook over HTTP: three doors for reviews, two for probes.

A request is answered from memory: nothing is waited for, so the time that the API server grants is never used up here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from flask import Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from kbs.errors import KbsError, MalformedMessage, PayloadTooLarge
from kbs.k8s.webhook import review as reviews
from kbs.k8s.webhook.cache import ProfileCache
from kbs.k8s.webhook.decisions import DOORS, Decision
from kbs.k8s.webhook.metrics import Metrics
from kbs.k8s.webhook.review import Review

_JSON: Final = "application/json"
_LOG = logging.getLogger("kbs.k8s.webhook")


def create_app(cache: ProfileCache, metrics: Metrics, is_working: Callable[[], bool]) -> Flask:
    """The WSGI application.

    Args:
        is_working: whether whatever keeps the cache true is alive; else the process asks to be restarted.
    """
    app = Flask("kbs.k8s.webhook", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = reviews.MAX_SIZE

    @app.post("/<any(mutate, validate, foresee):door>")
    def answer(door: str) -> Response:
        return _answer(door, cache, metrics)

    @app.get("/healthz")
    def healthz() -> Response:
        return _plain("ok", 200) if is_working() else _plain("the watch of profiles has ended", 500)

    @app.get("/readyz")
    def readyz() -> Response:
        return _plain("ok", 200) if cache.is_current() else _plain("profiles are not known, or not lately", 503)

    return app


def _answer(door: str, cache: ProfileCache, metrics: Metrics) -> Response:
    start = time.perf_counter()
    decision: Decision | None = None
    review: Review | None = None
    try:
        if request.mimetype != _JSON:
            raise MalformedMessage(f"the content type is not {_JSON}")
        review = reviews.decode(_body())
        decision = DOORS[door](review, cache)
        return Response(decision.answer(review.uid), 200, content_type=_JSON)
    except PayloadTooLarge as err:
        return _plain(str(err), 413)
    except KbsError as err:  # whatever is no answer is a no: the API server's failurePolicy sees to it
        _LOG.warning("no review", extra={"members": {"door": door, "error": str(err)}})
        return _plain(str(err), 400)
    finally:
        seconds = time.perf_counter() - start
        metrics.note(door, decision, seconds)
        if review is not None and decision is not None:
            _write(door, review, decision, seconds)


def _body() -> bytes:
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise PayloadTooLarge(f"more than {reviews.MAX_SIZE} octets") from None


def _write(door: str, review: Review, decision: Decision, seconds: float) -> None:
    """One line a review. Never the Pod, and of the patch only how long it is."""
    _LOG.info(
        "review",
        extra={
            "members": {
                "door": door,
                "uid": review.uid,
                "operation": review.operation,
                "kind": review.kind,
                "namespace": review.namespace,
                "name": review.name or None,
                "profile": decision.profile,
                "result": decision.result.value,
                "refusals": sorted({each.name for each in decision.refusals}) or None,
                "additions": len(decision.patch) or None,
                "dry_run": review.dry_run or None,
                "milliseconds": round(seconds * 1000, 1),
            }
        },
    )


def _plain(text: str, status: int) -> Response:
    return Response(text + "\n", status, content_type="text/plain; charset=utf-8")
