"""Secrets as administrators see them: written, listed, rolled back, deleted; never read."""

from __future__ import annotations

from kbs.audit.events import ResourceChanged
from kbs.audit.gate import Decided
from kbs.plugins.model import Plugin, PluginRequest
from kbs.plugins.resource import ResourcePlugin
from kbs.protocol.resource_path import parse as parse_path
from kbs.web.administration.decode import (
    actor,
    document_response,
    entry_document,
    etag,
    expected_version,
    json_response,
    wanted_version,
)
from kbs.web.model import Call, Handler, HttpResponse


class ResourceRoutes:
    """Names and versions of secrets, never their bytes."""

    def __init__(self, plugin: ResourcePlugin) -> None:
        self._plugin = plugin

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/resources?prefix=…"""
        entries = self._plugin.entries(call.target.query.get("prefix", ""))
        return document_response(call, "resources", [entry_document(entry) for entry in entries])

    def show(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/resources/<repository>/<type>/<tag>: its versions."""
        path = parse_path(call.parameters)
        history = self._plugin.history(path)
        document = {
            "path": str(path),
            "version": history[-1].version,
            "versions": [entry_document(each) for each in history],
        }
        return document_response(call, f"resource {path}", document, etag(history[-1].version or None))

    def roll_back(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/resources/…/rollback {"version": n}."""
        path = parse_path(call.parameters)
        admin = actor(call)
        version = self._plugin.roll_back(path, wanted_version(call), author=admin.name, expected=expected_version(call))
        event = ResourceChanged(
            decision=call.decision,
            actor=admin.name,
            path=f"resource/{path}",
            action="rollback",
            version=version,
            peer=call.request.peer,
        )
        return Decided((event,), json_response({"version": version}, etag(version or None)))


def plugin_handler(name: str, plugin: Plugin) -> Handler:
    """An administrator's requests to one plugin."""

    def handle(call: Call) -> Decided[HttpResponse]:
        admin = actor(call)
        request = PluginRequest(
            call.request.method,
            call.target.segments,
            call.target.query,
            call.request.body,
            expected=expected_version(call),
            author=admin.name,
        )
        answer = plugin.handle(request)
        event = ResourceChanged(
            decision=call.decision,
            actor=admin.name,
            path="/".join((name, *call.target.segments)),
            action=answer.action or call.request.method,
            version=answer.version,
            peer=call.request.peer,
        )
        response = HttpResponse(200, answer.payload.reveal(), "text/xml", etag(answer.version))
        return Decided((event,), response)

    return handle
