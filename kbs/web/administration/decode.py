"""Reading admin requests and wording answers, shared by the routes of every noun."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kbs import strict_json
from kbs.admin.authorization import Admin
from kbs.audit.events import AdminRead
from kbs.audit.gate import Decided
from kbs.errors import AdminForbidden, MalformedMessage
from kbs.storage.model import Entry
from kbs.web.model import Call, HttpResponse

JSON = "application/json"
_MAX_WARNINGS = 16
_MAX_WARNING = 500  # characters


def actor(call: Call) -> Admin:
    if call.admin is None:
        raise AdminForbidden("no administrator")
    return call.admin


def json_object(body: bytes) -> Mapping[str, Any]:
    document = strict_json.decode(body)
    if not isinstance(document, dict):
        raise MalformedMessage("the body is not a JSON object")
    return document


def only_parameter(call: Call, name: str) -> str:
    """The value of the one query parameter that the request must have: a name that does not fit a canonical path."""
    value = call.target.query.get(name)
    if not value or "&" in call.request.target or len(call.target.query) != 1:
        raise MalformedMessage(f"expected one query parameter, {name}")
    return value


def wanted_version(call: Call) -> int:
    version = json_object(call.request.body).get("version")
    if type(version) is not int or version < 1:
        raise MalformedMessage("member version is missing or not a positive number")
    return version


def expected_version(call: Call) -> int | None:
    """Compare-and-set: `If-Match: "<version>"`, or `If-None-Match: *` for a first version."""
    if call.request.if_none_match is not None:
        if call.request.if_none_match.strip() != "*":
            raise MalformedMessage("If-None-Match: only * is understood")
        return 0
    text = call.request.if_match
    if text is None:
        return None
    number = text.strip().removeprefix('"').removesuffix('"')
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise MalformedMessage('If-Match: expected a version, such as "3"')
    return int(number)


def etag(version: int | None) -> tuple[tuple[str, str], ...]:
    return () if version is None else (("ETag", f'"{version}"'),)


def entry_document(entry: Entry) -> dict[str, Any]:
    return {**entry.meta, "name": entry.key, "version": entry.version}


def json_response(document: Any, headers: tuple[tuple[str, str], ...] = ()) -> HttpResponse:
    return HttpResponse(200, json.dumps(document, separators=(",", ":")).encode(), JSON, headers)


def document_response(
    call: Call, what: str, document: Any, headers: tuple[tuple[str, str], ...] = ()
) -> Decided[HttpResponse]:
    event = AdminRead(decision=call.decision, actor=actor(call).name, what=what, peer=call.request.peer)
    return Decided((event,), json_response(document, headers))


def warning_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """One header each, for upstream's answer has no body. The compiler quotes the policy: only plain text may pass."""
    plain = (
        " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii") for text in texts[:_MAX_WARNINGS]
    )
    return tuple(
        ("Kbs-Warning", "".join(character for character in text if character.isprintable())[:_MAX_WARNING])
        for text in plain
        if text
    )
