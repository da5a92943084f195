"""A software CCA attester: a make-believe platform with its key, one realm on it, and every way to get a token wrong.

Written against Arm's documents (DEN0137 A7.2.3, draft-ffm-rats-cca-token-00) and not against our parser, so that one
checks the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.test_root import TestRoot
from kbs.protocol import base64url
from kbs.protocol.tee import Tee

ABSENT: Final = object()
"""In place of a claim's value: leave the claim out."""

PROFILES: Final = {  # generation: platform profile, realm profile
    "legacy": ("http://arm.com/CCA-SSD/1.0.0", None),
    "2023": ("tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2023:realm#1.0.0"),
    "2024": ("tag:arm.com,2024:cca_platform#2.0.0", "tag:arm.com,2024:realm#2.0.0"),
}
SECURED: Final = 0x3003
FIRMWARE: Final = ("RSE_BL1_2", "RSE_BL2", "RSE_S", "AP_BL1", "AP_BL2", "SCP_BL1", "SCP_BL2", "AP_BL31", "RMM")

_ALGORITHMS: Final = {-7: (SHA256(), 32), -35: (SHA384(), 48), -36: (SHA512(), 66)}
_CURVES: Final = {"secp256r1": ("P-256", 1, -7), "secp384r1": ("P-384", 2, -35), "secp521r1": ("P-521", 3, -36)}


class SoftwareCca(SoftwareAttester):
    """One platform and one realm. `anchors`, `options`, `endorsements`: as in a case file."""

    tee = Tee.CCA

    def __init__(
        self,
        root: TestRoot | None = None,
        *,
        generation: str = "legacy",
        cpak_curve: ec.EllipticCurve | None = None,
        rak_curve: ec.EllipticCurve | None = None,
    ) -> None:
        """Make the keys, or find them: attesters of one root and curves are the same platform and realm.

        Args:
            root: None: one of its own, so another platform.
            generation: one of `PROFILES`.
            cpak_curve, rak_curve: of the platform's and the realm's key; None: P-384, all that `legacy` has for
                realms.
        """
        self.root = root or TestRoot()
        self.generation = generation
        cpak_curve, rak_curve = cpak_curve or ec.SECP384R1(), rak_curve or ec.SECP384R1()
        self.cpak = self.root.ec(f"cca-cpak-{cpak_curve.name}", cpak_curve)
        self.rak = self.root.ec(f"cca-rak-{rak_curve.name}", rak_curve)
        self.implementation_id = hashlib.sha256(b"make-believe implementation").digest()
        self.instance_id = b"\x01" + hashlib.sha256(_encoded_point(self.cpak)).digest()

    @property
    def anchors(self) -> dict[str, Any]:
        """The enrolled key for `VerifierOptions.anchors`."""
        return {
            "cpak": public_jwk(self.cpak),
            "implementation_id": self.implementation_id.hex(),
            "instance_id": self.instance_id.hex(),
        }

    @property
    def options(self) -> dict[str, Any]:
        """Options that this attester's evidence needs."""
        return {}

    @property
    def endorsements(self) -> dict[str, str]:
        """None are needed."""
        return {}

    def evidence(self, report_data: bytes, init_data: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Evidence in the JSON form. changes: see `token`."""
        return {"token": list(self.token(report_data, init_data, **changes))}

    def token(
        self,
        report_data: bytes,
        init_data: bytes | None = None,
        *,
        realm: Mapping[int, Any] | None = None,
        platform: Mapping[int, Any] | None = None,
        realm_message: Mapping[str, Any] | None = None,
        platform_message: Mapping[str, Any] | None = None,
        collection: Mapping[int, Any] | None = None,
        tag: int = 399,
    ) -> bytes:
        """The encoded token.

        Args:
            realm, platform: claims to set before signing; `ABSENT` leaves one out. A changed realm key changes the
                platform's challenge with it.
            realm_message, platform_message: keywords of `sign1`.
            collection: members to set in the collection after signing.
        """
        realm_claims = _changed(self._realm_claims(report_data, init_data), realm or {})
        platform_claims = _changed(self._platform_claims(realm_claims), platform or {})
        signed = {
            44234: sign1(platform_claims, **{"key": self.cpak, **(platform_message or {})}),
            44241: sign1(realm_claims, **{"key": self.rak, **(realm_message or {})}),
        }
        return cbor2.dumps(cbor2.CBORTag(tag, _changed(signed, collection or {})))

    def _realm_claims(self, report_data: bytes, init_data: bytes | None) -> dict[int, Any]:
        profile = PROFILES[self.generation][1]
        claims: dict[int, Any] = {} if profile is None else {265: profile}
        return {
            **claims,
            10: report_data.ljust(64, b"\0"),
            44235: (init_data or b"").ljust(64, b"\0"),
            44236: "sha-512",
            44237: _encoded_point(self.rak) if profile is None else cose_key(self.rak),
            44238: hashlib.sha512(b"realm image").digest(),
            44239: [bytes(64), hashlib.sha512(b"extended once").digest(), bytes(64), bytes(64)],
            44240: "sha-256",
        }

    def _platform_claims(self, realm: Mapping[int, Any]) -> dict[int, Any]:
        signer = hashlib.sha256(b"firmware signer").digest()
        key = realm.get(44237, b"")
        return {
            265: PROFILES[self.generation][0],
            10: hashlib.sha256(key if isinstance(key, bytes) else b"").digest(),
            2396: self.implementation_id,
            256: self.instance_id,
            2401: bytes.fromhex("cfcfcfcf"),
            2395: SECURED,
            2402: "sha-256",
            2400: "https://verifier.example/.well-known/verification",
            2399: [
                {1: name, 5: signer, 2: hashlib.sha256(name.encode()).digest(), 4: "1.0.2", 6: "sha-256"}
                for name in FIRMWARE
            ],
        }

    @property
    def sw_components(self) -> list[dict[str, str]]:
        """The firmware as the option `cca_sw_components` approves it."""
        return [
            {"type": each[1], "measurement": each[2].hex(), "signer_id": each[5].hex()}
            for each in self._platform_claims({})[2399]
        ]


def sign1(
    claims: Any,
    *,
    key: ec.EllipticCurvePrivateKey,
    algorithm: int | None = None,
    protected: Mapping[Any, Any] | None = None,
    unprotected: Any = None,
    detached: bool = False,
    tag: int | None = 18,
    flip: int | None = None,
) -> bytes:
    """A COSE_Sign1 message over the encoded claims, or over `claims` itself if it is bytes (RFC 9052 section 4.4).

    Args:
        algorithm: what the protected header says; None: the one of the key's curve. Its hash is the one used.
        protected: further members of the protected header, or others in place of its algorithm.
        unprotected: the whole unprotected header; None: an empty one.
        detached: leave the payload out of the message.
        tag: None: without one.
        flip: offset in the signature of a byte to change.
    """
    algorithm = _CURVES[key.curve.name][2] if algorithm is None else algorithm
    header = cbor2.dumps({1: algorithm, **(protected or {})})
    payload = claims if isinstance(claims, bytes) else cbor2.dumps(claims)
    digest, _ = _ALGORITHMS.get(algorithm, _ALGORITHMS[-35])
    width = (key.curve.key_size + 7) // 8
    der = key.sign(cbor2.dumps(["Signature1", header, b"", payload]), ec.ECDSA(digest))
    signature = bytearray(b"".join(part.to_bytes(width, "big") for part in decode_dss_signature(der)))
    if flip is not None:
        signature[flip] ^= 1
    message = [header, {} if unprotected is None else unprotected, None if detached else payload, bytes(signature)]
    return cbor2.dumps(message if tag is None else cbor2.CBORTag(tag, message))


def cose_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as an encoded COSE_Key (RFC 9053 section 7.1.1)."""
    point, curve = _encoded_point(key), _CURVES[key.curve.name][1]
    width = len(point) // 2
    return cbor2.dumps({1: 2, -1: curve, -2: point[1 : 1 + width], -3: point[1 + width :]})


def public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key as a JWK (RFC 7518 section 6.2)."""
    point, width = _encoded_point(key), (key.curve.key_size + 7) // 8
    x, y = (base64url.encode(part).decode("ascii") for part in (point[1 : 1 + width], point[1 + width :]))
    return {"kty": "EC", "crv": _CURVES[key.curve.name][0], "x": x, "y": y}


def _encoded_point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _changed(claims: Mapping[int, Any], changes: Mapping[int, Any]) -> dict[int, Any]:
    return {key: value for key, value in {**claims, **changes}.items() if value is not ABSENT}
