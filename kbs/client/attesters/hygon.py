"""A make-believe Hygon: root key, signing key, chips and platforms, in Hygon's certificate forms.

Written against Hygon's documents (CSV API specification, certificate formats) and not against our parser, so that one
checks the other. Signatures are made with `gmalg`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import gmalg

from kbs.client.attesters.test_root import TestRoot

HRK, HSK, OCA, PEK, CEK = 0, 0x13, 0x1001, 0x1002, 0x1004
INVALID: Final = 0x1000
SM2_SA: Final = 4
_SM2_P256: Final = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """One key: 32 bytes private, x ‖ y public (big-endian), and its user id."""

    private: bytes
    point: bytes
    user_id: bytes

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """Components r and s, 72 bytes each, little-endian."""
        signer = gmalg.SM2(sk=self.private, uid=self.user_id, pk=b"\x04" + self.point)
        r, s = signer.sign(message)
        return r[::-1].ljust(72, b"\0"), s[::-1].ljust(72, b"\0")


class SoftwareHygon:
    """The vendor's part: keys by name, certificates on request.

    Args:
        root: where keys are kept; attesters of one root trust one HRK.
    """

    def __init__(self, root: TestRoot) -> None:
        self.root = root

    def holder(self, name: str, user_id: str) -> Holder:
        """The key `name`, made at first use."""
        pair = self.root.document(f"hygon-{name}.sm2", _new_key)
        return Holder(pair[:32], pair[32:], user_id.encode())

    @property
    def hrk(self) -> Holder:
        """The root key."""
        return self.holder("hrk", "HYGON-SSD-HRK")

    @property
    def hsk(self) -> Holder:
        """The key that signs chips."""
        return self.holder("hsk", "HYGON-SSD-HSK")

    def cek(self, chip: str) -> Holder:
        """The key of one chip."""
        return self.holder(f"cek-{chip.lower()}", "HYGON-SSD-CEK")

    @property
    def anchors(self) -> dict[str, str]:
        """Roots for `VerifierOptions.anchors`."""
        certificate = self.root.document("hygon-hrk.cert", lambda: ca_certificate(HRK, self.hrk, self.hrk))
        return {"hrk": base64.b64encode(certificate).decode()}

    def hsk_cek(self, chip: str) -> bytes:
        """HSK and CEK of one chip, as Hygon's service gives them: 2916 bytes."""
        hsk = self.root.document("hygon-hsk.cert", lambda: ca_certificate(HSK, self.hsk, self.hrk))
        made = self.root.document(
            f"hygon-cek-{chip.lower()}.cert", lambda: csv_certificate(CEK, self.cek(chip), {HSK: self.hsk})
        )
        return hsk + made


def _new_key() -> bytes:
    private, public = gmalg.SM2().generate_keypair()
    return bytes(private).rjust(32, b"\0") + bytes(public)[1:]


def ca_certificate(usage: int, holder: Holder, issuer: Holder, **changes: Any) -> bytes:
    """HRK or HSK: 832 bytes.

    Args:
        changes: `version`, `curve` (numbers), `x`, `y` (32 bytes, big-endian), `uid_size` (number), `after` (bytes to
            put at offsets once it is signed).
    """
    body = bytearray(832)
    body[0:4] = changes.get("version", 1).to_bytes(4, "little")
    body[4:20] = holder.point[:16]
    body[20:36] = issuer.point[:16]
    body[36:40] = usage.to_bytes(4, "little")
    body[64:68] = changes.get("curve", _SM2_P256).to_bytes(4, "little")
    _put_key(body, 68, holder, changes)
    body[576:648], body[648:720] = issuer.sign(bytes(body[:576]))
    return _after(body, changes)


def csv_certificate(usage: int, holder: Holder, issuers: dict[int, Holder], **changes: Any) -> bytes:
    """CEK or PEK: 2084 bytes.

    Args:
        issuers: up to two, by what the signature slot calls them, in this order.
        changes: as `ca_certificate`, and `algorithm`, `slot_algorithm` (numbers).
    """
    body = bytearray(2084)
    body[0:4] = changes.get("version", 1).to_bytes(4, "little")
    body[4:6] = bytes((1, 3))
    body[8:12] = usage.to_bytes(4, "little")
    body[12:16] = changes.get("algorithm", SM2_SA).to_bytes(4, "little")
    body[16:20] = changes.get("curve", _SM2_P256).to_bytes(4, "little")
    _put_key(body, 20, holder, changes)
    signed = bytes(body[:1044])
    for index in (0, 1):
        body[1044 + 520 * index : 1048 + 520 * index] = INVALID.to_bytes(4, "little")
    for index, (name, issuer) in enumerate(issuers.items()):
        offset = 1044 + 520 * index
        body[offset : offset + 4] = name.to_bytes(4, "little")
        body[offset + 4 : offset + 8] = changes.get("slot_algorithm", SM2_SA).to_bytes(4, "little")
        body[offset + 8 : offset + 80], body[offset + 80 : offset + 152] = issuer.sign(signed)
    return _after(body, changes)


def _put_key(body: bytearray, offset: int, holder: Holder, changes: dict[str, Any]) -> None:
    """x, y, size of the user id, user id."""
    body[offset : offset + 72] = changes.get("x", holder.point[:32])[::-1].ljust(72, b"\0")
    body[offset + 72 : offset + 144] = changes.get("y", holder.point[32:])[::-1].ljust(72, b"\0")
    size = changes.get("uid_size", len(holder.user_id))
    body[offset + 144 : offset + 146] = size.to_bytes(2, "little")
    body[offset + 146 : offset + 146 + len(holder.user_id)] = holder.user_id


def _after(body: bytearray, changes: dict[str, Any]) -> bytes:
    for offset, put in changes.get("after", {}).items():
        body[offset : offset + len(put)] = put
    return bytes(body)


def ca_json(raw: bytes) -> dict[str, Any]:
    """An HSK in the form that guests send."""
    return {
        "body": {
            "preamble": {
                "ver": _number(raw, 0, 4),
                "data": {
                    "kid": list(raw[4:20]),
                    "sid": list(raw[20:36]),
                    "usage": _number(raw, 36, 4),
                    "reserved": list(raw[40:64]),
                },
            },
            "pubkey": {"g": _number(raw, 64, 4), "x": list(raw[68:140]), "y": list(raw[140:212])},
            "uid_size": _number(raw, 212, 2),
            "user_id": list(raw[214:468]),
            "reserved": list(raw[468:576]),
        },
        "signature": {"r": list(raw[576:648]), "s": list(raw[648:720])},
        "_reserved": list(raw[720:832]),
    }


def csv_json(raw: bytes) -> dict[str, Any]:
    """A CEK or PEK in the form that guests send."""
    key = {"g": _number(raw, 16, 4), "x": list(raw[20:92]), "y": list(raw[92:164])}
    return {
        "body": {
            "ver": _number(raw, 0, 4),
            "data": {
                "firmware": {"major": raw[4], "minor": raw[5]},
                "reserved1": _number(raw, 6, 2),
                "pubkey": {"usage": _number(raw, 8, 4), "algo": _number(raw, 12, 4), "key": key},
                "uid_size": _number(raw, 164, 2),
                "user_id": list(raw[166:420]),
                "sid": list(raw[420:436]),
                "reserved2": list(raw[436:1044]),
            },
        },
        "sigs": [
            {
                "usage": _number(raw, offset, 4),
                "algo": _number(raw, offset + 4, 4),
                "signature": {"r": list(raw[offset + 8 : offset + 80]), "s": list(raw[offset + 80 : offset + 152])},
                "_reserved": list(raw[offset + 152 : offset + 520]),
            }
            for offset in (1044, 1564)
        ],
    }


def _number(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")
