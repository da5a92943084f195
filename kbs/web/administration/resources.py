"""Secrets as administrators see them: written, listed, rolled back, deleted; never read."""

from __future__ import annotations

from typing import cast

from kbs.audit.events import ResourceChanged
from kbs.audit.gate import Decided
from kbs.errors import MalformedMessage
from kbs.plugins.model import Plugin, PluginRequest
from kbs.plugins.resource import ResourcePlugin
from kbs.plugins.resource.generation import ESCROW, Encoding, Shape
from kbs.protocol.resource_path import parse as parse_path
from kbs.web.administration.decode import (
    actor,
    document_response,
    entry_document,
    etag,
    expected_version,
    json_object,
    json_response,
    wanted_version,
    warning_headers,
)
from kbs.web.model import Call, Handler, HttpResponse


class ResourceRoutes:
    """Names and versions of secrets, never their bytes."""

    def __init__(self, plugin: ResourcePlugin) -> None:
        self._plugin = plugin

    def list_all(self, call: Call) -> Decided[HttpResponse]:
        """GET admin/resources?prefix=…"""
        entries = self._plugin.entries(call.target.query.get("prefix", ""))
        documents = [entry_document(entry) for entry in entries]
        for document in documents:
            document.pop(ESCROW, None)  # long, and of one resource at a time
        return document_response(call, "resources", documents)

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

    def generate(self, call: Call) -> Decided[HttpResponse]:
        """POST admin/resources/…/generate {"bytes"?: n, "encoding"?: …, "rotate"?: bool}: nobody sees the value."""
        path = parse_path(call.parameters)
        admin = actor(call)
        asked = json_object(call.request.body)
        octets, encoding, rotate = asked.get("bytes"), asked.get("encoding", "raw"), asked.get("rotate", False)
        if asked.keys() - {"bytes", "encoding", "rotate"} or type(rotate) is not bool:
            raise MalformedMessage("expected no members but bytes (number), encoding (text) and rotate (true or false)")
        if octets is None and "encoding" in asked:
            raise MalformedMessage("encoding goes with bytes")
        if octets is not None and (type(octets) is not int or not isinstance(encoding, str)):
            raise MalformedMessage("bytes is a number, encoding a text")
        shape = None if octets is None else Shape(octets, cast(Encoding, encoding))
        version = self._plugin.generate(path, shape, author=admin.name, rotate=rotate)
        event = ResourceChanged(
            decision=call.decision,
            actor=admin.name,
            path=f"resource/{path}",
            action="rotate" if rotate else "generate",
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
        headers = (*etag(answer.version), *warning_headers(answer.warnings))
        response = HttpResponse(200, answer.payload.reveal(), "text/xml", headers)
        return Decided((event,), response)

    return handle
