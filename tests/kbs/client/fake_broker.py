"""A broker in one function: real handshake, real binding, real sealing, no network.

It does what is asked of a broker at the wire and nothing more, so that a client which gets a digest, a cookie or a key
wrong is refused.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx

from kbs.errors import KbsError
from kbs.protocol import jwe
from kbs.protocol.rcar import Attestation, decode_attestation, decode_request
from kbs.protocol.runtime_data import HashAlgorithm, device_runtime_data, digest, primary_runtime_data
from kbs.protocol.tee import Tee
from kbs.protocol.tee_key import TeeKey

ERRORS = "https://github.com/confidential-containers/kbs/errors/"
BASE = "https://broker.test:8080"
Override = Callable[[httpx.Request], httpx.Response | None]


def problem(status: int, name: str, detail: str = "no", **members: Any) -> httpx.Response:
    headers = {"Retry-After": "7"} if status in (429, 503) else {}
    return httpx.Response(status, json={"type": ERRORS + name, "detail": detail, **members}, headers=headers)


class FakeBroker:
    """Holds resources by path; `override` may answer a request before the broker does."""

    def __init__(self, resources: dict[str, bytes] | None = None, algorithm: str = "sha384") -> None:
        self.resources = resources or {}
        self.algorithm = HashAlgorithm(algorithm)
        self.override: Override = lambda request: None
        self.requests: list[httpx.Request] = []
        self.attestations: list[Attestation] = []
        self._nonces: dict[str, str] = {}  # cookie → nonce
        self._keys: dict[str, TeeKey] = {}  # cookie or token → attested key

    @property
    def log(self) -> list[str]:
        return [
            f"{request.method} {request.url.raw_path.decode().removeprefix('/kbs/v0/')}" for request in self.requests
        ]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def forget_sessions(self) -> None:
        self._nonces.clear()
        self._keys.clear()

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.override(request)
        if answer is not None:
            return answer
        path = request.url.path.removeprefix("/kbs/v0/")
        if (request.method, path) == ("POST", "auth"):
            return self._auth(request)
        if (request.method, path) == ("POST", "attest"):
            return self._attest(request)
        if request.method == "GET" and path.startswith("resource/"):
            return self._resource(request, path.removeprefix("resource/"))
        return problem(404, "PluginNotFound", f"Plugin {path} not found")

    def _auth(self, request: httpx.Request) -> httpx.Response:
        try:
            decode_request(request.content, frozenset(Tee))
        except KbsError as err:
            return problem(400, "AttestationError", str(err))
        cookie = f"{len(self.requests):032x}"
        self._nonces[cookie] = nonce = base64.b64encode(len(self.requests).to_bytes(32, "big")).decode()
        extra = "" if self.algorithm == "sha384" else {"selected-hash-algorithm": self.algorithm.value.upper()}
        return _with_cookie(cookie, {"nonce": nonce, "extra-params": extra})

    def _attest(self, request: httpx.Request) -> httpx.Response:
        cookie = _cookie(request)
        try:
            attestation = decode_attestation(request.content)
        except KbsError as err:
            return problem(400, "AttestationError", str(err))
        self.attestations.append(attestation)
        if cookie not in self._nonces or self._nonces[cookie] != attestation.nonce:
            return problem(401, "AttestationError", "no such challenge", reason="nonce_mismatch")
        if not self._is_bound(attestation):
            return problem(401, "AttestationError", "report data", reason="binding_mismatch", decision="d" * 32)
        token = f"header.{cookie}.signature"
        self._keys[cookie] = self._keys[token] = attestation.tee_key
        return _with_cookie(cookie, {"token": token})

    def _is_bound(self, attestation: Attestation) -> bool:
        key, nonce = attestation.tee_key, attestation.nonce
        primary = primary_runtime_data(nonce, key, attestation.additional_evidence)
        evidences = [(attestation.primary_evidence, primary)]
        evidences += [(evidence, device_runtime_data(nonce, key)) for _, evidence in attestation.additional]
        return all(
            hmac.compare_digest(base64.b64decode(evidence["report_data"]), digest(bound, self.algorithm))
            for evidence, bound in evidences
        )

    def _resource(self, request: httpx.Request, path: str) -> httpx.Response:
        cookie, bearer = _cookie(request), request.headers.get("Authorization", "").removeprefix("Bearer ")
        key = self._keys.get(cookie) or self._keys.get(bearer)
        if key is None:
            return problem(401, "TokenNotFound", "Attestation Token not found", reason="token_missing")
        if path not in self.resources:
            return problem(404, "ResourceNotFound", f"no resource {path}")
        body = jwe.seal(key, self.resources[path], allow_rsa1_5=True)
        return httpx.Response(200, content=body, headers={"Content-Type": "application/json"})


def _cookie(request: httpx.Request) -> str:
    return str(request.headers.get("Cookie", "")).removeprefix("kbs-session-id=")


def _with_cookie(cookie: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Set-Cookie": f"kbs-session-id={cookie}; Expires=Fri, 21 Aug 2026 02:00:31 GMT"}
    return httpx.Response(200, content=json.dumps(body).encode(), headers=headers)
