"""A software publisher of CoRIM: manifests to the draft, and COSE signatures that a test can bend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from tests.fakes.signing_chain import PrivateKey

ES256, ES384, ES512, EDDSA, PS256, PS384, PS512 = -7, -35, -36, -8, -37, -38, -39
HASHES: Mapping[int, HashAlgorithm] = {
    ES256: SHA256(),
    ES384: SHA384(),
    ES512: SHA512(),
    PS256: SHA256(),
    PS384: SHA384(),
    PS512: SHA512(),
}
META = cbor2.dumps({0: {0: "ACME Ltd signing key"}})
DIGEST = bytes(range(32))
ENVIRONMENT: Mapping[int, Any] = {0: {1: "ACME", 2: "RoadRunner"}}


def measurement(values: Mapping[int, Any] | None = None, key: Any = "firmware") -> dict[int, Any]:
    return {0: key, 1: {2: [[1, DIGEST]]} if values is None else values}


def comid(
    measurements: Sequence[Any] | None = None,
    environment: Mapping[int, Any] = ENVIRONMENT,
    identity: Mapping[int, Any] | None = None,
) -> bytes:
    triple = [environment, [measurement()] if measurements is None else measurements]
    return cbor2.dumps({1: {0: "acme-firmware", 1: 6} if identity is None else identity, 4: {0: [triple]}})


def manifest(*comids: bytes, validity: Mapping[int, Any] | None = None, **more: Any) -> bytes:
    """An unsigned CoRIM around these modules, or one of the usual."""
    corim: dict[int, Any] = {0: "acme-manifest", 1: [cbor2.CBORTag(506, each) for each in comids or (comid(),)]}
    if validity is not None:
        corim[4] = validity
    return cbor2.dumps(cbor2.CBORTag(501, corim | more))


def epoch(seconds: int) -> cbor2.CBORTag:
    return cbor2.CBORTag(1, seconds)


@dataclass(frozen=True)
class Signer:
    """Signs whatever it is given, with any header."""

    key: PrivateKey
    algorithm: int = ES256
    header: Mapping[Any, Any] = field(default_factory=dict)
    unprotected: Mapping[Any, Any] = field(default_factory=dict)

    def sign(self, payload: bytes, *, left_out: Sequence[int] = (), sent: Any = b"") -> bytes:
        """A message; `sent` stands in place of the payload if it is not empty bytes."""
        whole = {1: self.algorithm, 3: "application/rim+cbor", 8: META} | dict(self.header)
        protected = cbor2.dumps({label: value for label, value in whole.items() if label not in left_out})
        signature = self.signature(cbor2.dumps(["Signature1", protected, b"", payload]))
        parts = [protected, dict(self.unprotected), payload if sent == b"" else sent, signature]
        return cbor2.dumps(cbor2.CBORTag(18, parts))

    def signature(self, signed: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(signed)
        hash_ = HASHES[self.algorithm]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            width = (self.key.curve.key_size + 7) // 8
            r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(hash_)))
            return r.to_bytes(width, "big") + s.to_bytes(width, "big")
        return self.key.sign(signed, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hash_)
