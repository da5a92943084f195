"""A registry in this process, as an httpx transport: the distribution API, with and without authentication.

It keeps what it is asked in `requests`, and does as it should unless `before` answers a request in its place.
Source: OCI distribution-spec 1.1; distribution's token authentication specification.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs

import httpx

from tests.fakes.oci_images import sha256

_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]*)")


class FakeRegistry(httpx.BaseTransport):
    """One registry with any number of repositories. auth: None, "basic" or "token"; the user is `user:word`."""

    def __init__(self, *, auth: str | None = None, host: str = "registry.test") -> None:
        self.auth = auth
        self.host = host
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[httpx.Request] = []
        self.tokens = 0
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.upload_headers: dict[str, str] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.before(request) or self._answer(request)
        if not answer.is_stream_consumed:
            return answer
        # as it comes from a socket: not read yet
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return self._token(request)
        if (refused := self._unauthorized(request)) is not None:
            return refused
        return self._manifest(request) or self._upload(request) or self._blob(request) or httpx.Response(404)

    def put(self, name: str, tag: str, blobs: dict[str, bytes], root: dict[str, object]) -> None:
        """An image that is there from the beginning."""
        for digest, raw in blobs.items():
            self.blobs[name, digest] = raw
            if raw.startswith(b"{") and b"schemaVersion" in raw:
                self.manifests[name, digest] = (raw, json.loads(raw)["mediaType"])
        self.manifests[name, tag] = (blobs[str(root["digest"])], str(root["mediaType"]))

    def sent(self, method: str) -> list[str]:
        """Paths that were asked with a method."""
        return [request.url.path for request in self.requests if request.method == method]

    def _unauthorized(self, request: httpx.Request) -> httpx.Response | None:
        shown = request.headers.get("Authorization", "")
        if self.auth == "basic" and shown != "Basic " + base64.b64encode(b"user:word").decode():
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        if self.auth == "token" and shown != f"Bearer token-{self.tokens}":
            realm = f'Bearer realm="https://{self.host}/token",service="s",scope="repository:x:pull"'
            return httpx.Response(401, headers={"WWW-Authenticate": realm}, json={"errors": [{"code": "UNAUTHORIZED"}]})
        return None

    def _token(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != "Basic " + base64.b64encode(b"user:word").decode():
            return httpx.Response(401, json={"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]})
        self.tokens += 1
        return httpx.Response(200, json={"token": f"token-{self.tokens}"})

    def _manifest(self, request: httpx.Request) -> httpx.Response | None:
        found = _MANIFEST.fullmatch(request.url.path)
        if found is None:
            return None
        name, reference = found[1], found[2]
        if request.method == "PUT":
            kept = (request.content, request.headers["Content-Type"])
            listed = json.loads(request.content)
            for each in listed.get("manifests", []):
                if (name, each["digest"]) not in self.manifests:
                    return _no(400, "MANIFEST_BLOB_UNKNOWN")
            for each in [*listed.get("layers", []), *([listed["config"]] if "config" in listed else [])]:
                if (name, each["digest"]) not in self.blobs:
                    return _no(400, "MANIFEST_BLOB_UNKNOWN")
            self.manifests[name, reference] = self.manifests[name, sha256(request.content)] = kept
            return httpx.Response(201, headers={"Docker-Content-Digest": sha256(request.content)})
        if (name, reference) not in self.manifests:
            return _no(404, "MANIFEST_UNKNOWN")
        raw, kind = self.manifests[name, reference]
        return httpx.Response(200, content=raw, headers={"Content-Type": kind, "Docker-Content-Digest": sha256(raw)})

    def _blob(self, request: httpx.Request) -> httpx.Response | None:
        found = _BLOB.fullmatch(request.url.path)
        if found is None or (found[1], found[2]) not in self.blobs:
            return None if found is None else _no(404, "BLOB_UNKNOWN")
        raw = self.blobs[found[1], found[2]]
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Content-Length": str(len(raw))})
        return httpx.Response(200, content=raw)

    def _upload(self, request: httpx.Request) -> httpx.Response | None:
        found = _UPLOAD.fullmatch(request.url.path)
        if found is None:
            return None
        name, number = found[1], found[2] or str(len(self.uploads))
        held = self.uploads.setdefault(number, bytearray())
        where = {"Location": f"/v2/{name}/blobs/uploads/{number}?state=x{len(held)}"}
        if request.method == "POST":
            return httpx.Response(202, headers={**where, **self.upload_headers})
        if request.method == "DELETE":
            del self.uploads[number]
            return httpx.Response(204)
        if request.method == "PATCH":
            if request.headers["Content-Range"] != f"{len(held)}-{len(held) + len(request.content) - 1}":
                return _no(416, "BLOB_UPLOAD_INVALID")
            held += request.content
            return httpx.Response(202, headers=where)
        [digest] = parse_qs(request.url.query.decode())["digest"]
        if sha256(bytes(held)) != digest:
            return _no(400, "DIGEST_INVALID")
        self.blobs[name, digest] = bytes(self.uploads.pop(number))
        return httpx.Response(201, headers={"Docker-Content-Digest": digest})


def _no(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"errors": [{"code": code, "message": "as you see"}]})
