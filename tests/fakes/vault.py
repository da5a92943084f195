"""A Vault in this process, below `requests`: KV 1 at `kv1/`, KV 2 at `secret/`, AppRole and Kubernetes log-in.

Answers as the Vault HTTP API describes them; `tests/server/test_openbao.py` holds it to the real thing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

ROLE_ID, SECRET_ID, JWT = "role-1", "approle-CANARY-secret", "service-account-CANARY-jwt"
TIME = "2026-06-15T12:00:00.000000001Z"


@dataclass
class FakeVault:
    """State and faults. tokens: those that may do everything."""

    tokens: set[str] = field(default_factory=set)
    v1: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    v2: dict[str, dict[int, Mapping[str, Any]]] = field(default_factory=dict)
    logins: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, Any]] = field(default_factory=list)
    lease: int = 3600
    forbidden: set[str] = field(default_factory=set)
    answer: tuple[int, bytes, Mapping[str, str]] | None = None
    """Given to every request, whatever it asks."""
    fails: Exception | None = None

    def send(self, _adapter: HTTPAdapter, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """In place of `HTTPAdapter.send`."""
        assert options["timeout"]
        path = unquote(urlsplit(str(request.url)).path).removeprefix("/v1/")
        self.seen.append((str(request.method), path))
        self.headers.append({name: request.headers[name] for name in request.headers})
        if self.fails is not None:
            raise self.fails
        status, body, headers = self.answer or self._answer(request, path)
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
        response.url = str(request.url)
        response.request = request
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), headers, status, preload_content=False)
        return response

    def _answer(self, request: requests.PreparedRequest, path: str) -> tuple[int, bytes, Mapping[str, str]]:
        status, document = self._route(str(request.method), path, request)
        body = b"" if document is None else json.dumps(document).encode()
        return status, body, {"Content-Type": "application/json"}

    def _route(self, method: str, path: str, request: requests.PreparedRequest) -> tuple[int, Any]:
        sent = request.body
        body = json.loads(sent) if isinstance(sent, str | bytes) and sent else {}
        if path.startswith("auth/"):
            return self._log_in(path, body)
        if request.headers.get("X-Vault-Token") not in self.tokens or path in self.forbidden:
            return 403, {"errors": ["permission denied"]}
        mount, _, rest = path.partition("/")
        if mount == "kv1":
            return self._kv1(method, rest, body)
        kind, _, name = rest.partition("/")
        if mount == "secret" and kind in ("data", "metadata"):
            return (self._data if kind == "data" else self._metadata)(method, name, body, request)
        return 404, {"errors": ["no handler for route"]}

    def _log_in(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        good = {
            "auth/approle/login": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
            "auth/kubernetes/login": {"role": ROLE_ID, "jwt": JWT},
        }
        if body != good.get(path):
            return 400, {"errors": ["invalid role or secret ID"]}
        self.logins += 1
        token = f"hvs.CANARY-{self.logins}"
        self.tokens.add(token)
        return 200, {"auth": {"client_token": token, "lease_duration": self.lease, "renewable": True}}

    def _kv1(self, method: str, name: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if method == "LIST":
            return self._list(self.v1, name)
        if method == "GET":
            return (200, {"data": self.v1[name]}) if name in self.v1 else (404, {"errors": []})
        if method == "DELETE":
            self.v1.pop(name, None)
        else:
            self.v1[name] = body
        return 204, None

    def _data(
        self, method: str, name: str, body: Mapping[str, Any], request: requests.PreparedRequest
    ) -> tuple[int, Any]:
        kept = self.v2.get(name, {})
        if method == "GET":
            wanted = int(urlsplit(str(request.url)).query.removeprefix("version=") or 0) or max(kept, default=0)
            if wanted not in kept:
                return 404, {"errors": []}
            metadata = {"version": wanted, "created_time": TIME, "deletion_time": "", "destroyed": False}
            return 200, {"data": {"data": kept[wanted], "metadata": metadata}}
        cas = body.get("options", {}).get("cas")
        if cas is not None and cas != max(kept, default=0):
            return 400, {"errors": ["check-and-set parameter did not match the current version"]}
        number = max(kept, default=0) + 1
        self.v2.setdefault(name, {})[number] = body["data"]
        return 200, {"data": {"version": number, "created_time": TIME}}

    def _metadata(
        self, method: str, name: str, _body: Mapping[str, Any], _request: requests.PreparedRequest
    ) -> tuple[int, Any]:
        if method == "LIST":
            return self._list(self.v2, name)
        if method == "DELETE":
            self.v2.pop(name, None)
            return 204, None
        if name not in self.v2:
            return 404, {"errors": []}
        versions = {
            str(number): {"created_time": TIME, "deletion_time": "", "destroyed": False} for number in self.v2[name]
        }
        return 200, {"data": {"versions": versions, "current_version": max(self.v2[name])}}

    @staticmethod
    def _list(names: Mapping[str, Any], folder: str) -> tuple[int, Any]:
        root = f"{folder.strip('/')}/" if folder.strip("/") else ""
        below = {name.removeprefix(root) for name in names if name.startswith(root)}
        keys = sorted({name.split("/")[0] + ("/" if "/" in name else "") for name in below})
        return (200, {"data": {"keys": keys}}) if keys else (404, {"errors": []})
