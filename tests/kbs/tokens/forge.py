"""Makes tokens of every shape, good and bad, with nothing of the code under test but the key wrapper."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = datetime(2026, 6, 15, tzinfo=UTC)
T = int(NOW.timestamp())
ISSUER = "CoCo-Attestation-Service"

TEE_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "0HJnlbfsER3LBmPbLryP4MCMSe3w6H2dvUt28XGkeps",
    "y": "3gh9AVDwbE32-hqMFnUhF_wfR1P4e8A6nHaq6bxcikE",
}

Signer = Callable[[bytes], bytes]


def clock() -> datetime:
    """Always `NOW`."""
    return NOW


def b64u(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def es(key: ec.EllipticCurvePrivateKey, digest: hashes.HashAlgorithm | None = None) -> Signer:
    size = (key.curve.key_size + 7) // 8

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest or hashes.SHA256())))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def der(key: ec.EllipticCurvePrivateKey) -> Signer:
    """The encoding that X.509 uses and JOSE does not."""
    return lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))


def ed(key: ed25519.Ed25519PrivateKey) -> Signer:
    return key.sign


def rs(key: rsa.RSAPrivateKey, digest: hashes.HashAlgorithm) -> Signer:
    return lambda data: key.sign(data, padding.PKCS1v15(), digest)


def ps(key: rsa.RSAPrivateKey, digest: hashes.HashAlgorithm) -> Signer:
    return lambda data: key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)


def hs256(secret: bytes) -> Signer:
    def sign(data: bytes) -> bytes:
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(data)
        return mac.finalize()

    return sign


def no_signature(data: bytes) -> bytes:
    return b""


def token(header: Any, claims: Any, signer: Signer) -> str:
    """Objects are written as compact JSON; bytes go in as they are."""
    parts = (part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode() for part in
             (header, claims))  # fmt: skip
    signing_input = ".".join(b64u(part) for part in parts)
    return f"{signing_input}.{b64u(signer(signing_input.encode()))}"


def ear(**changes: Any) -> dict[str, Any]:
    """Claims as the attestation service writes them; a change to `...` drops the member."""
    claims: dict[str, Any] = {
        "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
        "iat": T,
        "ear.verifier-id": {"developer": "https://confidentialcontainers.org", "build": "test"},
        "submods": {
            "cpu0": {
                "ear.status": "affirming",
                "ear.trustworthiness-vector": {"executables": 2},
                "ear.appraisal-policy-id": "default",
                "ear.veraison.annotated-evidence": {
                    "snp": {"measurement": "test"},
                    "runtime_data_claims": {"nonce": "bm9uY2U=", "tee-pubkey": TEE_KEY},
                },
            }
        },
        "exp": T + 300,
        "iss": ISSUER,
        "nbf": T,
        "jti": "0123456789abcdef",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not ...}
