"""Init data: the register of known documents, and where a guest's init data come from."""

from __future__ import annotations

from kbs.admin.init_data import Find, InitDataRegister, Kept, origin
from kbs.audit.events import ReferenceValueChanged
from kbs.audit.gate import Decided
from kbs.errors import MalformedMessage
from kbs.protocol import base64url
from kbs.web.administration.decode import (
    actor,
    document_response,
    etag,
    expected_version,
    json_object,
    json_response,
)
from kbs.web.administration.references import issuer_of, worded
from kbs.web.model import Call, HttpResponse
from rvps.compute.init_data import NAME as DIGESTS


class InitDataRoutes:
    """The register. It is no secret: whoever may read reference values may read documents."""

    def __init__(self, register: InitDataRegister, *, find: Find, kept: Kept) -> None:
        self._register = register
        self._find = find
        self._kept = kept

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/init-data: every entry without its text."""
        return document_response(call, "init data", [each.summary() for each in self._register.all()])

    def show(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/init-data/<name>: text, digest, fields of all TEEs."""
        found = self._register.get(call.parameters[0])
        return document_response(call, f"init data {found.name}", found.whole(), etag(found.version))

    def register(self, call: Call) -> Decided[HttpResponse]:
        """PUT admin/init-data/<name> {"owner", "document": base64url of the exact text}."""
        body = json_object(call.request.body)
        owner, encoded = body.get("owner"), body.get("document")
        if not isinstance(owner, str) or not isinstance(encoded, str):
            raise MalformedMessage("members owner and document are needed, both strings")
        with worded():
            found = self._register.register(
                call.parameters[0],
                owner,
                base64url.decode(encoded),
                author=actor(call).name,
                issuer=issuer_of(call),
                expected=expected_version(call),
            )
        return self._changed(call, "register", found.name, found.summary(), found.version)

    def remove(self, call: Call) -> Decided[HttpResponse]:
        """DELETE admin/init-data/<name>: its guests no longer match."""
        with worded():
            found = self._register.remove(call.parameters[0], issuer=issuer_of(call), expected=expected_version(call))
        return self._changed(call, "withdraw", found.name, found.summary(), None)

    def explain(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/init-data-origin/<hex or decision id>."""
        asked = call.parameters[0]
        found = origin(asked, self._register, self._find, self._kept)
        return document_response(call, f"origin of init data {asked}", found)

    def _changed(
        self, call: Call, action: str, name: str, answer: dict[str, object], version: int | None
    ) -> Decided[HttpResponse]:
        event = ReferenceValueChanged(
            decision=call.decision,
            actor=actor(call).name,
            action=action,
            names=(f"init-data/{name}", DIGESTS),
            peer=call.request.peer,
        )
        return Decided((event,), json_response(answer, etag(version)))
