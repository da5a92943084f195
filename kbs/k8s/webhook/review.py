"""`AdmissionReview` of `admission.k8s.io/v1`, in and out.

Members that later releases of Kubernetes add are left alone; those that are read have their types.
Source: Kubernetes API, admission.k8s.io/v1; RFC 6902 for patches.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kbs import strict_json
from kbs.errors import MalformedMessage
from kbs.k8s.wiring.findings import Finding
from kbs.k8s.wiring.json_patch import Addition

API_VERSION: Final = "admission.k8s.io/v1"
MAX_SIZE: Final = 8 << 20
"""Octets: an API server takes objects of 3 MiB, and of an update it sends two."""

_LIMITS: Final = strict_json.Limits(size=MAX_SIZE, tokens=500_000)
_OPERATIONS: Final = ("CREATE", "UPDATE", "DELETE", "CONNECT")
_MAX_WORD: Final = 512
_MAX_WARNING: Final = 250  # characters; an API server cuts what is longer than 256 when there are many
_MAX_WARNINGS: Final = 14  # together below the 4096 characters that it passes on
_MAX_MESSAGE: Final = 20  # findings in one message
_CODES: Final = {"profiles-unavailable": (503, "ServiceUnavailable")}
_FORBIDDEN: Final = (403, "Forbidden")


@dataclass(frozen=True, slots=True)
class Review:
    """What is asked. namespace: that of the request. name: empty where the API server makes it. before: of updates."""

    uid: str
    kind: str
    sub_resource: str
    operation: str
    namespace: str
    name: str
    object: dict[str, Any] | None
    before: dict[str, Any] | None
    dry_run: bool


def decode(raw: bytes) -> Review:
    """Read a request.

    Raises:
        PayloadTooLarge: more than `MAX_SIZE`. MalformedMessage: no such review; the text says which member.
    """
    review = strict_json.decode(raw, limits=_LIMITS)
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise MalformedMessage("not an AdmissionReview")
    if review.get("apiVersion") != API_VERSION:
        raise MalformedMessage(f"apiVersion is not {API_VERSION}")
    request = _object(review, "request")
    if request is None:
        raise MalformedMessage("request is missing")
    uid, operation = _word(request, "uid"), _word(request, "operation")
    if not uid:
        raise MalformedMessage("request.uid is missing")
    if operation not in _OPERATIONS:
        raise MalformedMessage("request.operation is none of CREATE, UPDATE, DELETE and CONNECT")
    kind = _object(request, "kind")
    if kind is None:
        raise MalformedMessage("request.kind is missing")
    dry_run = request.get("dryRun")
    if dry_run is not None and not isinstance(dry_run, bool):
        raise MalformedMessage("request.dryRun is not a boolean")
    return Review(
        uid=uid,
        kind=_word(kind, "kind"),
        sub_resource=_word(request, "subResource"),
        operation=operation,
        namespace=_word(request, "namespace"),
        name=_word(request, "name"),
        object=_object(request, "object"),
        before=_object(request, "oldObject"),
        dry_run=bool(dry_run),
    )


def allow(uid: str, patch: Sequence[Addition] = (), warnings: Sequence[str] = ()) -> bytes:
    """A yes, with what is to be added."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        additions = strict_json.encode([each.as_json() for each in patch])
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(additions).decode("ascii")}
    if warnings:
        response["warnings"] = [_cut(each) for each in warnings[:_MAX_WARNINGS]]
    return _encode(response)


def deny(uid: str, refusals: Sequence[Finding]) -> bytes:
    """A no, with all the reasons: as text for people and as causes for programs."""
    code, reason = _CODES.get(refusals[0].name, _FORBIDDEN)
    causes = [{"reason": each.name, "field": each.where, "message": each.text} for each in refusals[:_MAX_MESSAGE]]
    lines = [each.line() for each in refusals[:_MAX_MESSAGE]]
    if len(refusals) > _MAX_MESSAGE:
        lines.append(f"and {len(refusals) - _MAX_MESSAGE} more")
    message = lines[0] if len(lines) == 1 else "".join(f"\n- {line}" for line in lines)
    status = {"status": "Failure", "code": code, "reason": reason, "message": message, "details": {"causes": causes}}
    return _encode({"uid": uid, "allowed": False, "status": status})


def _encode(response: dict[str, Any]) -> bytes:
    return strict_json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def _object(members: dict[str, Any], name: str) -> dict[str, Any] | None:
    found = members.get(name)
    if found is not None and not isinstance(found, dict):
        raise MalformedMessage(f"{name} is no object")
    return found


def _word(members: dict[str, Any], name: str) -> str:
    found = members.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _MAX_WORD or not found.isprintable():
        raise MalformedMessage(f"{name} is no text of one line")
    return found


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_WARNING else f"{line[: _MAX_WARNING - 1]}…"
