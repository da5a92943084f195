"""Decisions, admin tokens, status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from kbs.admin.admin_tokens import AdminTokenMint
from kbs.admin.explain import Find, explain
from kbs.admin.revocations import Revocations
from kbs.audit.events import AdminTokenIssued, AdminTokenRevoked
from kbs.audit.gate import Decided
from kbs.errors import MalformedMessage
from kbs.web.administration.decode import JSON, actor, document_response, json_object, json_response, only_parameter
from kbs.web.model import Call, HttpResponse

_MAX_SECONDS = 1 << 32


class ServiceRoutes:
    """What belongs to no other noun."""

    def __init__(
        self, *, find: Find, revocations: Revocations, mint: AdminTokenMint, status: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._find = find
        self._revocations = revocations
        self._mint = mint
        self._status = status

    def explain(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/decisions/<id>."""
        found = explain(call.parameters[0], self._find)
        return document_response(call, f"decision {call.parameters[0]}", found.document())

    def status(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/status."""
        return document_response(call, "status", self._status())

    def issue_token(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/tokens {"subject", "role", "lifetime_seconds"?, "scope"?}: no more than the asker may itself."""
        document = json_object(call.request.body)
        subject, role = document.get("subject"), document.get("role")
        if not isinstance(subject, str) or not isinstance(role, str):
            raise MalformedMessage("members subject and role are needed, both strings")
        seconds, scope = document.get("lifetime_seconds"), document.get("scope")
        if seconds is not None and (type(seconds) is not int or not 0 < seconds < _MAX_SECONDS):
            raise MalformedMessage("lifetime_seconds is not a positive number")
        if scope is not None and not (isinstance(scope, list) and all(isinstance(each, str) for each in scope)):
            raise MalformedMessage("scope is not a list of strings")
        lifetime = None if seconds is None else timedelta(seconds=seconds)
        token = self._mint.mint_for(actor(call), subject, role, lifetime, scope)
        event = AdminTokenIssued(
            decision=call.decision,
            actor=actor(call).name,
            subject=subject,
            role=role,
            token_id=token.token_id,
            expires=token.expires.isoformat(),
        )
        body = {"token": token.text, "id": token.token_id, "expires": token.expires.isoformat()}
        return Decided((event,), json_response(body))

    def revoke_token(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/tokens/<id>."""
        return self._revoke(call, call.parameters[0])

    def revoke_identified(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/tokens?id=…: identity providers make ids that do not fit a path."""
        return self._revoke(call, only_parameter(call, "id"))

    def _revoke(self, call: Call, token_id: str) -> Decided[HttpResponse]:
        self._revocations.revoke(token_id, author=actor(call).name)
        event = AdminTokenRevoked(decision=call.decision, actor=actor(call).name, token_id=token_id)
        return Decided((event,), HttpResponse(200, b"", JSON))
