"""What a call to a broker may raise. `str(err)` is fit for a terminal and holds no secret.

One class per thing a caller might do about it; the wire name, status and stable `reason` are members of every refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from kbs import strict_json
from kbs.errors import KbsError

TYPE_PREFIX: Final = "https://github.com/confidential-containers/kbs/errors/"
_MAX_TEXT: Final = 1000  # characters of a peer's text that are kept


class ClientError(Exception):
    """Root of the tree."""


class ClientMisconfigured(ClientError):
    """Arguments that cannot work: a file that does not read, an address that is none, a token over plain HTTP."""


class Unreachable(ClientError):
    """No answer: connection, TLS, timeout, or an answer cut short. Whether the request took effect is unknown."""


class UnexpectedAnswer(ClientError):
    """An answer that is not of this protocol: another program's, a proxy's, or one that does not open or decode."""


class VersionsUnknown(ClientError):
    """A broker of another make that does not tell what it has. A change on a condition was not sent: it would have been
    made without the condition."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of a refusal (RFC 9457).

    name: `type` without the prefix, e.g. `PolicyDeny`. reason: stable code. decision: id for `kbs explain`.
    retry_after: seconds, when the broker named a time. reason, decision and instance are None where a broker of
    another make answered.
    """

    status: int
    name: str
    detail: str
    reason: str | None = None
    decision: str | None = None
    instance: str | None = None
    retry_after: int | None = None


class Refused(ClientError):
    """The broker said no, and why."""

    def __init__(self, problem: Problem) -> None:
        decision = f" (decision {problem.decision})" if problem.decision else ""
        super().__init__(f"{problem.status} {problem.name}: {problem.detail}{decision}")
        self.problem = problem


class BadRequest(Refused):
    """The request does not decode, is too large, or names no method of that path."""


class AttestationRefused(Refused):
    """The handshake or the evidence was refused."""


class TokenRefused(Refused):
    """No attestation token, or one that was not accepted; attesting again can help."""


class PolicyDenied(Refused):
    """The policy said no; attesting again does not help."""


class AdminRefused(Refused):
    """No admin credential, a bad one (401), or one without the permission (403)."""


class NotFound(Refused):
    """No such resource, value, policy, plugin or path."""


class Conflict(Refused):
    """Somebody else changed it first (compare-and-set)."""


class Unacceptable(Refused):
    """Understood, and not taken: a policy that does not compile, a name that is not allowed, a key that is off."""


class TryLater(Refused):
    """Too many requests, or something the broker needs is down. `problem.retry_after` may say when."""


class BrokerFailed(Refused):
    """A fault of the broker itself."""


_BY_NAME: Final[dict[str, type[Refused]]] = {
    "AttestationError": AttestationRefused,
    "TokenNotFound": TokenRefused,
    "TokenVerifierError": TokenRefused,
    "PolicyDeny": PolicyDenied,
    "AdminAuthAccess": AdminRefused,
    "AdminAuthInitialization": AdminRefused,
}
# A name decides before a status: brokers of another make answer nearly everything with 401.
_BY_STATUS: Final[dict[int, type[Refused]]] = {
    400: BadRequest,
    404: NotFound,
    405: BadRequest,
    412: Conflict,
    413: BadRequest,
    422: Unacceptable,
    429: TryLater,
    431: BadRequest,
    503: TryLater,
}


def refusal(response: httpx.Response) -> ClientError:
    """The error for an answer other than 200, to be raised by the caller."""
    try:
        body = strict_json.decode(response.content)
    except KbsError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or not isinstance(body.get("detail"), str):
        return UnexpectedAnswer(f"status {response.status_code}, and the body is no problem of this protocol")
    problem = Problem(
        status=response.status_code,
        name=_shown(body["type"]).removeprefix(TYPE_PREFIX),
        detail=_shown(body["detail"]),
        reason=_text_or_none(body.get("reason")),
        decision=_text_or_none(body.get("decision")),
        instance=_text_or_none(body.get("instance")),
        retry_after=_seconds(response.headers.get("Retry-After")),
    )
    return _class_of(problem)(problem)


def _class_of(problem: Problem) -> type[Refused]:
    found = _BY_STATUS.get(problem.status)
    if found is TryLater:
        return TryLater  # whatever was asked for
    if problem.status >= 500:
        return BrokerFailed
    return _BY_NAME.get(problem.name) or found or Refused


def _text_or_none(value: strict_json.Json) -> str | None:
    return _shown(value) if isinstance(value, str) else None


def _shown(text: str) -> str:
    """A peer's text, short and without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:_MAX_TEXT])


def _seconds(header: str | None) -> int | None:
    return int(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 9 else None
