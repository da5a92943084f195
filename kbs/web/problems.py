"""The one table from errors to problem details (RFC 9457).

Bodies carry string `type` and `detail` first, because the field's guests decode exactly those two, then `title`,
`status`, `instance`, `reason` and, where a decision was recorded, `decision`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from kbs import errors
from kbs.errors import KbsError
from kbs.web.model import Family, HttpResponse

PREFIX: Final = "https://github.com/confidential-containers/kbs/errors/"
CONTENT_TYPE: Final = "application/problem+json"
_RETRY_AFTER: Final = "5"  # seconds


@dataclass(frozen=True, slots=True)
class Problem:
    """How one class of error looks on the wire. show_detail False: the text stays here."""

    status: int
    name: str
    title: str
    show_detail: bool = True


PROBLEMS: Final[dict[type[KbsError], Problem]] = {
    errors.PeerFault: Problem(400, "MalformedRequest", "Bad request"),
    errors.MalformedMessage: Problem(400, "MalformedRequest", "The request does not decode"),
    errors.PayloadTooLarge: Problem(413, "PayloadTooLarge", "The body is too large"),
    errors.HandshakeRefused: Problem(401, "AttestationError", "Attest again"),
    errors.EvidenceRejected: Problem(401, "AttestationError", "The evidence was refused"),
    errors.TokenMissing: Problem(401, "TokenNotFound", "No attestation token"),
    errors.TokenRejected: Problem(401, "TokenVerifierError", "The attestation token was refused"),
    errors.AccessDenied: Problem(403, "PolicyDeny", "The policy says no"),
    errors.PodTokenRejected: Problem(403, "PodIdentityError", "The pod's token was refused"),
    errors.TeeKeyUnusable: Problem(422, "JweError", "The TEE key cannot be used"),
    errors.AdminUnauthenticated: Problem(401, "AdminAuthAccess", "Admin credential needed"),
    errors.AdminForbidden: Problem(403, "AdminAuthAccess", "Not permitted"),
    errors.ResourceNotFound: Problem(404, "ResourceNotFound", "Not found"),
    errors.PluginNotFound: Problem(404, "PluginNotFound", "No such plugin"),
    errors.RouteNotFound: Problem(404, "RouteNotFound", "No such path"),
    errors.MethodNotAllowed: Problem(405, "MethodNotAllowed", "Method not allowed"),
    errors.PolicyMalformed: Problem(422, "ParsePolicyError", "The policy upload does not decode"),
    errors.PolicyUnacceptable: Problem(422, "PolicyEngineError", "The policy was not taken"),
    errors.ReferenceValueUnacceptable: Problem(422, "RvpsError", "The reference value was not taken"),
    errors.NameNotAllowed: Problem(422, "NameNotAllowed", "The name is not allowed"),
    errors.VersionConflict: Problem(412, "VersionConflict", "Somebody else changed it first"),
    errors.RateLimited: Problem(429, "RateLimited", "Too many requests"),
    errors.DependencyFault: Problem(503, "DependencyUnavailable", "Try again later", show_detail=False),
    errors.PolicyBroken: Problem(500, "PolicyEngineError", "The active policy does not work", show_detail=False),
    errors.KbsError: Problem(500, "InternalError", "Internal error", show_detail=False),
}

_ATTESTATION_PREFIX: Final = {
    Family.AUTH: "Attestation error: RCAR handshake Auth failed: ",
    Family.ATTEST: "Attestation error: RCAR handshake Attest failed: ",
}


def problem_for(err: KbsError, family: Family = Family.GUEST) -> Problem:
    """The row for an error: the most specific class in its MRO. On auth and attest a malformed message is an
    `AttestationError`, as the field's guests expect."""
    for kind in type(err).__mro__:
        found = PROBLEMS.get(kind)
        if found is not None:
            if found.name == "MalformedRequest" and family in _ATTESTATION_PREFIX:
                return Problem(found.status, "AttestationError", found.title)
            return found
    raise AssertionError("KbsError has a row")


def render(err: KbsError, *, family: Family, path: str, instance: str, decision: str | None) -> HttpResponse:
    """The answer for an error.

    Args:
        path: for the text of admin refusals.
        instance: id of this occurrence, also in the log line.
        decision: id under which the decision was recorded; None when nothing was.
    """
    problem = problem_for(err, family)
    detail = str(err) if problem.show_detail else problem.title
    if problem.name == "AttestationError":
        detail = _ATTESTATION_PREFIX.get(family, "Attestation error: ") + detail
    if problem.name == "AdminAuthAccess":
        detail = f"admin access denied for endpoint {path}: {detail}"
    body: dict[str, object] = {
        "type": PREFIX + problem.name,
        "detail": detail,
        "title": problem.title,
        "status": problem.status,
        "instance": f"urn:kbs:instance:{instance}",
        "reason": err.reason,
    }
    if decision is not None:
        body["decision"] = decision
    headers: list[tuple[str, str]] = []
    if problem.status in (429, 503):
        headers.append(("Retry-After", _RETRY_AFTER))
    if problem.status == 413 or isinstance(err, errors.LargeBodiesFull):
        headers.append(("Connection", "close"))  # the rest of the body stays unread
    if isinstance(err, errors.MethodNotAllowed):
        headers.append(("Allow", ", ".join(err.allow)))
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
    return HttpResponse(problem.status, text, CONTENT_TYPE, tuple(headers))


_UNREADABLE: Final = {
    400: (400, "MalformedRequest", "The request does not decode", "the request is not HTTP as it is spoken here"),
    408: (408, "MalformedRequest", "The request came too slowly", "the request head took too long"),
    414: (431, "PayloadTooLarge", "The head is too large", "the request line is larger than 65534 octets"),
    431: (431, "PayloadTooLarge", "The head is too large", "the request head is larger than 131072 octets"),
    501: (501, "MalformedRequest", "The request does not decode", "the transfer coding is not spoken here"),
}


def unreadable(status: int, *, instance: str) -> HttpResponse:
    """The answer to what is no request. status: as the HTTP parser has it; one that it has no reason for is our bug.

    Nothing of what came in is repeated: it may be a credential in the wrong place.
    """
    bug = (500, "InternalError", "Internal error", "Internal error")
    status, name, title, detail = _UNREADABLE.get(status, bug)
    body = {
        "type": PREFIX + name,
        "detail": detail,
        "title": title,
        "status": status,
        "instance": f"urn:kbs:instance:{instance}",
        "reason": "internal_error" if status == 500 else "malformed_head",
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    return HttpResponse(status, text, CONTENT_TYPE, (("Connection", "close"),))
