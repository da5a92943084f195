"""The Secrets of one namespace of a Kubernetes API in this process, below the client's `RESTClientObject.request`.

Answers as the Kubernetes API concepts describe it; `tests/k8s/test_secret_store.py` holds it to the real thing.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from kubernetes.client.rest import RESTResponse

TOKEN = "service-account-CANARY-token"
KUBECONFIG = f"""apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: c, cluster: {{server: "https://cluster.example:6443"}}}}]
users: [{{name: u, user: {{token: {TOKEN}}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
"""
TIME = "2026-06-15T12:00:00Z"


class _Stream(io.RawIOBase):
    """What a watch writes, until somebody ends it."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._pending = b""
        self._ended = False
        self._broken = False

    def write_event(self, kind: str, document: Any) -> None:
        with self._ready:
            self._pending += json.dumps({"type": kind, "object": document}).encode() + b"\n"
            self._ready.notify_all()

    def end(self, *, broken: bool = False) -> None:
        with self._ready:
            self._ended, self._broken = True, broken
            self._ready.notify_all()

    def read1(self, size: int = -1) -> bytes:
        with self._ready:
            self._ready.wait_for(lambda: self._pending or self._ended, 20)
            out, self._pending = self._pending, b""
            if not out and self._broken:
                raise OSError("reset")
            return out


@dataclass
class FakeSecrets:
    """State and faults. refuse: status for each (method, or `LIST`, `WATCH`)."""

    namespace: str = "kbs"
    version: int = 100
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    fails: Exception | None = None
    interfere: Any = None
    """Called once before a change."""
    ended: bool = False

    def __post_init__(self) -> None:
        self._streams: list[tuple[_Stream, str]] = []
        self._lock = threading.RLock()

    def request(self, _client: Any, method: str, url: str, headers: Mapping[str, str], **rest: Any) -> RESTResponse:
        """In place of `RESTClientObject.request`."""
        assert rest["_request_timeout"]
        assert headers["authorization"] == f"Bearer {TOKEN}"
        if self.fails is not None:
            raise self.fails
        parts = urlsplit(url)
        base = f"/api/v1/namespaces/{self.namespace}/secrets"
        assert parts.path.startswith(base), parts.path
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        kind = method if method != "GET" else "WATCH" if query.get("watch") else "LIST"
        self.seen.append((kind, parts.path[len(base) + 1 :] or query.get("fieldSelector", "")))
        if kind in self.refuse:
            return _answer(self.refuse[kind], {"kind": "Status", "message": "CANARY"})
        if kind == "WATCH":
            return self._watch(query)
        if kind == "LIST":
            return self._list(query)
        if self.interfere is not None:
            act, self.interfere = self.interfere, None
            act()
        with self._lock:
            return self._change(method, parts.path[len(base) + 1 :], rest.get("body") or {})

    def apply(self, name: str, labels: Mapping[str, str], data: Mapping[str, str], **more: Any) -> None:
        """As somebody else would with kubectl."""
        with self._lock:
            self.version += 1
            before = self.secrets.get(name)
            metadata = {"name": name, "labels": dict(labels), "creationTimestamp": TIME}
            document = {"metadata": {**metadata, "resourceVersion": str(self.version)}, "data": dict(data), **more}
            self.secrets[name] = document
            self._tell("MODIFIED" if before else "ADDED", document)

    def drop(self, name: str) -> None:
        with self._lock:
            self.version += 1
            document = self.secrets.pop(name)
            document["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", document)

    def tell(self, kind: str, document: Any) -> None:
        """Write an event to every watch, whatever it is."""
        for stream, _ in self._streams:
            stream.write_event(kind, document)

    def end_watches(self, *, broken: bool = False) -> None:
        streams, self._streams = self._streams, []
        for stream, _ in streams:
            stream.end(broken=broken)

    def end(self) -> None:
        """For good."""
        self.ended = True
        self.end_watches()

    @property
    def watching(self) -> int:
        return len(self._streams)

    def _tell(self, kind: str, document: Mapping[str, Any]) -> None:
        for stream, selector in self._streams:
            if _labelled(document, selector):
                stream.write_event(kind, document)

    def _watch(self, query: Mapping[str, str]) -> RESTResponse:
        assert int(query["resourceVersion"]) >= 0
        assert query["timeoutSeconds"]
        stream = _Stream()
        with self._lock:
            for document in self.secrets.values():
                newer = int(document["metadata"]["resourceVersion"]) > int(query["resourceVersion"])
                if newer and _labelled(document, query["labelSelector"]):
                    stream.write_event("MODIFIED", document)
            if self.ended:
                stream.end()
            else:
                self._streams.append((stream, query["labelSelector"]))
        return RESTResponse(urllib3.HTTPResponse(stream, {}, 200, preload_content=False))

    def _list(self, query: Mapping[str, str]) -> RESTResponse:
        with self._lock:
            fitting = [each for each in self.secrets.values() if _labelled(each, query["labelSelector"])]
            if wanted := query.get("fieldSelector", "").removeprefix("metadata.name="):
                fitting = [each for each in fitting if each["metadata"]["name"] == wanted]
            begin, size = int(query.get("continue", 0)), 2  # small pages, so that they are always tried
            more = {"continue": str(begin + size)} if begin + size < len(fitting) else {}
            metadata = {"resourceVersion": str(self.version), **more}
            return _answer(200, {"kind": "SecretList", "metadata": metadata, "items": fitting[begin : begin + size]})

    def _change(self, method: str, name: str, body: Any) -> RESTResponse:
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.secrets:
                return _answer(409, {"reason": "AlreadyExists"})
            self.apply(name, body["metadata"]["labels"], body["data"])
            return _answer(201, self.secrets[name])
        if name not in self.secrets:
            return _answer(404, {"reason": "NotFound"})
        found = self.secrets[name]
        wanted = (body.get("metadata") or body.get("preconditions"))["resourceVersion"]
        if found["metadata"]["resourceVersion"] != wanted:
            return _answer(409, {"reason": "Conflict"})
        if method == "DELETE":
            self.drop(name)
            return _answer(200, {"kind": "Status"})
        data = {key: value for key, value in {**found["data"], **body["data"]}.items() if value is not None}
        self.apply(name, found["metadata"]["labels"], data)
        return _answer(200, self.secrets[name])


def _labelled(document: Mapping[str, Any], selector: str) -> bool:
    key, _, value = selector.partition("=")
    return bool(document["metadata"]["labels"].get(key) == value)


def _answer(status: int, document: Any) -> RESTResponse:
    body = io.BytesIO(json.dumps(document).encode())
    return RESTResponse(urllib3.HTTPResponse(body, {}, status, preload_content=False))
