"""A workload cluster in this process: signs service-account tokens as an API server does, and reviews them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.protocol import base64url
from kbs.tokens.jose import sign
from kbs.tokens.jwk import public_jwk
from tests.fakes.broker import START, StoppedClock

AUDIENCE: Final = "https://kbs.example"
KID: Final = "cluster-key"
LIFE: Final = 600


def compact(header: Any, claims: Any, key: ec.EllipticCurvePrivateKey | None) -> str:
    """A compact JWS; without a key the signature is four octets of nothing."""
    parts = [base64url.encode(json.dumps(each).encode()).decode() for each in (header, claims)]
    signed = ".".join(parts)
    signature = b"\0\0\0\0" if key is None else sign(key, signed.encode())
    return f"{signed}.{base64url.encode(signature).decode()}"


@dataclass
class FakeCluster:
    """One cluster. deleted: uids of Pods that are gone. asked: bodies of the reviews. answer: in place of the own one.

    Its service-account tokens have the claims and the header of Kubernetes 1.36.
    """

    issuer: str = "https://kubernetes.default.svc.cluster.local"
    clock: StoppedClock = field(default_factory=StoppedClock)
    deleted: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    answer: Any = None

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """What it signs with."""
        return ec.generate_private_key(ec.SECP256R1())

    def jwks(self, kid: str = KID) -> dict[str, Any]:
        """As `/openid/v1/jwks` has it."""
        return {"keys": [{**public_jwk(self.key.public_key()), "use": "sig", "kid": kid}]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token; a change to None takes a claim out."""
        now = int(START.timestamp())
        bound = {
            "namespace": "payments",
            "node": {"name": "node-1", "uid": "11111111-0000-4000-8000-000000000001"},
            "pod": {"name": "api-5c", "uid": "22222222-0000-4000-8000-000000000002"},
            "serviceaccount": {"name": "api", "uid": "33333333-0000-4000-8000-000000000003"},
        }
        found = {
            "aud": [AUDIENCE],
            "exp": now + LIFE,
            "iat": now,
            "iss": self.issuer,
            "jti": "44444444-0000-4000-8000-000000000004",
            "kubernetes.io": bound,
            "nbf": now,
            "sub": "system:serviceaccount:payments:api",
            **changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def token(
        self, *, header: Any = None, key: ec.EllipticCurvePrivateKey | None = None, bound: Any = ..., **changes: Any
    ) -> str:
        """A token of its own key, or of another one. bound: the claim `kubernetes.io`."""
        if bound is not ...:
            changes["kubernetes.io"] = bound
        return compact(header or {"alg": "ES256", "kid": KID}, self.claims(**changes), key or self.key)

    def bound(self, **changes: Any) -> dict[str, Any]:
        """The claim `kubernetes.io` with members replaced, or taken out."""
        found = {**self.claims()["kubernetes.io"], **changes}
        return {name: value for name, value in found.items() if value is not None}

    def write_jwks(self, path: Path, kid: str = KID) -> Path:
        """The key set as a file."""
        path.write_text(json.dumps(self.jwks(kid)))
        return path

    # --- the API server -----------------------------------------------------------------------------------------------

    def review(self, spec: dict[str, Any]) -> dict[str, Any]:
        """`status` of a TokenReview. It looks at no signature: tests of that are for the real one."""
        _, payload, _ = spec["token"].split(".")
        claims = json.loads(base64url.decode(payload))
        bound = claims["kubernetes.io"]
        shared = [each for each in spec["audiences"] if each in claims["aud"]]
        if not shared:
            return {"user": {}, "error": f"[invalid bearer token, token audiences {claims['aud']} is invalid]"}
        if bound["pod"]["uid"] in self.deleted:
            return {"user": {}, "error": "[invalid bearer token, pod is gone]"}
        extra = {
            "authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"],
            "authentication.kubernetes.io/node-name": [bound["node"]["name"]],
            "authentication.kubernetes.io/pod-name": [bound["pod"]["name"]],
            "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]],
        }
        user = {"username": claims["sub"], "uid": bound["serviceaccount"]["uid"], "groups": [], "extra": extra}
        return {"authenticated": True, "user": user, "audiences": shared}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """For `httpx.MockTransport`."""
        assert (request.method, request.url.path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        self.credentials.append(request.headers["Authorization"])
        body = json.loads(request.content)
        self.asked.append(body)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, httpx.Response):
            return self.answer
        status = self.answer if self.answer is not None else self.review(body["spec"])
        return httpx.Response(201, json={**body, "status": status})
