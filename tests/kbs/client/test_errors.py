"""From answers to exceptions."""

from __future__ import annotations

import httpx
import pytest

from kbs.client import errors
from kbs.client.errors import ClientError, Refused, UnexpectedAnswer, refusal
from tests.kbs.client.fake_broker import ERRORS, problem


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "MalformedRequest", errors.BadRequest),
        (400, "AttestationError", errors.AttestationRefused),
        (401, "AttestationError", errors.AttestationRefused),
        (401, "TokenNotFound", errors.TokenRefused),
        (401, "TokenVerifierError", errors.TokenRefused),
        (401, "AdminAuthAccess", errors.AdminRefused),
        (401, "AdminAuthInitialization", errors.AdminRefused),
        (401, "PluginInternalError", Refused),
        (401, "PolicyDeny", errors.PolicyDenied),
        (403, "AdminAuthAccess", errors.AdminRefused),
        (403, "PolicyDeny", errors.PolicyDenied),
        (404, "ResourceNotFound", errors.NotFound),
        (404, "PluginNotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.BadRequest),
        (412, "VersionConflict", errors.Conflict),
        (413, "PayloadTooLarge", errors.BadRequest),
        (422, "JweError", errors.Unacceptable),
        (422, "RvpsError", errors.Unacceptable),
        (429, "RateLimited", errors.TryLater),
        (429, "AttestationError", errors.TryLater),
        (431, "PayloadTooLarge", errors.BadRequest),
        (418, "Teapot", Refused),
        (500, "InternalError", errors.BrokerFailed),
        (500, "PolicyEngineError", errors.BrokerFailed),
        (500, "AttestationError", errors.BrokerFailed),
        (503, "DependencyUnavailable", errors.TryLater),
    ],
)
def test_each_refusal_has_its_class(status: int, name: str, kind: type[Refused]) -> None:
    found = refusal(problem(status, name, "why not", reason="code", decision="ab", instance="urn:x"))
    assert type(found) is kind
    assert isinstance(found, Refused)
    assert (found.problem.status, found.problem.name, found.problem.detail) == (status, name, "why not")
    assert (found.problem.reason, found.problem.decision, found.problem.instance) == ("code", "ab", "urn:x")
    assert str(found) == f"{status} {name}: why not (decision ab)"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("Fri, 21 Aug 2026 02:00:31 GMT", None), ("-1", None), ("\u0667", None)]
)
def test_retry_after_in_seconds_is_kept(header: str, seconds: int | None) -> None:
    response = httpx.Response(
        503, json={"type": ERRORS + "DependencyUnavailable", "detail": "x"}, headers=[(b"Retry-After", header.encode())]
    )
    found = refusal(response)
    assert isinstance(found, errors.TryLater)
    assert found.problem.retry_after == seconds


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b"{}", b'{"type":"x"}', b'{"type":1,"detail":"x"}', b'{"type":"x","detail":null}', b"\xff"],
)
@pytest.mark.parametrize("status", [201, 302, 401, 404, 502])
def test_bodies_that_are_no_problem(status: int, content: bytes) -> None:
    found = refusal(httpx.Response(status, content=content))
    assert type(found) is UnexpectedAnswer
    assert str(status) in str(found)


def test_members_of_another_type_are_left_out() -> None:
    found = refusal(problem(403, "PolicyDeny", reason=1, decision=[], instance=None))
    assert isinstance(found, Refused)
    assert (found.problem.reason, found.problem.decision, found.problem.instance) == (None, None, None)
    assert str(found) == "403 PolicyDeny: no"


def test_a_peers_text_is_cut_and_cannot_steer_a_terminal() -> None:
    found = refusal(problem(403, "PolicyDeny", "\x1b[2J\n" + "x" * 5000, decision="\x1b]0;title\x07"))
    assert str(found).isprintable()
    assert len(str(found)) < 1100


def test_all_errors_have_one_root() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, ClientError) for kind in kinds if kind.__module__ == errors.__name__)
    assert len(kinds) > 12
