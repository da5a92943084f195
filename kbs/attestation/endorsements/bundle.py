"""Bundles: endorsements in one file, for sites without a network.

    kbs-endorsements/1
    {"items":[{"data":"<base64>","name":"amd/crl/Milan","refresh_at":"…Z","valid_until":"…Z"},…]}
    {"alg":"EdDSA","key":"<base64 SubjectPublicKeyInfo>","signature":"<base64>"}

Three lines, each ended by one newline. The second is canonical JSON (RFC 8785) with items sorted by name, and Ed25519
signatures are deterministic: the same items and key make the same bytes. The signature is over the first two lines with
their newlines. The third line of an unsigned bundle is `{"alg":"none"}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from kbs import strict_json
from kbs.attestation.endorsements.model import Obtained
from kbs.errors import MalformedMessage, PayloadTooLarge

MAX_BUNDLE: Final = 64 * 1024 * 1024  # bytes
MAX_ITEMS: Final = 4096  # as many as the cache keeps
_MAGIC: Final = b"kbs-endorsements/1\n"
_MEMBERS: Final = {"data", "name", "refresh_at", "valid_until"}
_LIMITS: Final = strict_json.Limits(size=MAX_BUNDLE, depth=4, tokens=12 * MAX_ITEMS)
_SIGNATURE_LIMITS: Final = strict_json.Limits(size=1024, depth=1, tokens=8)


class BundleInvalid(ValueError):
    """A bundle that does not parse, is not signed by the key asked for, or is more than a bundle may be."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds. `fingerprint`: of the key that signed it (`fingerprint_of`); None: unsigned."""

    items: Mapping[str, Obtained]
    fingerprint: str | None


def is_bundle(raw: bytes) -> bool:
    """Whether a file begins as bundles do, of this version or another."""
    return raw.startswith(b"kbs-endorsements/")


def write_bundle(items: Mapping[str, Obtained], key: Ed25519PrivateKey | None) -> bytes:
    """The file. `key` None: unsigned.

    Raises:
        BundleInvalid: more than a bundle may hold.
    """
    if len(items) > MAX_ITEMS:
        raise BundleInvalid(f"more than {MAX_ITEMS} items")
    rows = [
        {
            "data": base64.b64encode(item.data).decode("ascii"),
            "name": name,
            "refresh_at": _text(item.refresh_at),
            "valid_until": _text(item.valid_until),
        }
        for name, item in sorted(items.items())
    ]
    signed = _MAGIC + strict_json.canonical({"items": rows}) + b"\n"
    if key is None:
        tail: dict[str, str] = {"alg": "none"}
    else:
        tail = {
            "alg": "EdDSA",
            "key": base64.b64encode(_spki(key.public_key())).decode("ascii"),
            "signature": base64.b64encode(key.sign(signed)).decode("ascii"),
        }
    raw = signed + strict_json.canonical(tail) + b"\n"
    if len(raw) > MAX_BUNDLE:
        raise BundleInvalid(f"more than {MAX_BUNDLE} octets")
    return raw


def read_bundle(raw: bytes, fingerprint: str | None) -> Bundle:
    """Read a bundle after checking its signature.

    Args:
        raw: as found in a file; nothing in it is trusted.
        fingerprint: of the key that must have signed it; None takes any bundle, unsigned ones too. What the items say
            of their own times is not compared with the bundle here.

    Raises:
        BundleInvalid: it is anything else than a well-formed bundle, or not signed by that key.
    """
    if len(raw) > MAX_BUNDLE:
        raise BundleInvalid("it is too large for a bundle")
    if not raw.startswith(_MAGIC):
        raise BundleInvalid("it is no bundle of endorsements of this version")
    lines = raw.split(b"\n")
    if len(lines) != 4 or lines[3]:
        raise BundleInvalid("it is cut short, or something stands behind it")
    signer = _signer(lines[2], b"\n".join(lines[:2]) + b"\n")
    if fingerprint is not None:
        if signer is None:
            raise BundleInvalid("it is not signed")
        if not hmac.compare_digest(signer, fingerprint):
            raise BundleInvalid("it is signed by another key")
    return Bundle(_items(lines[1]), signer)


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo in DER, hex."""
    return hashlib.sha256(_spki(key)).hexdigest()


def _spki(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signer(line: bytes, signed: bytes) -> str | None:
    """Fingerprint of the key whose signature holds; None when the bundle says that it is unsigned."""
    tail = _decode(line, _SIGNATURE_LIMITS)
    if tail == {"alg": "none"}:
        return None
    if not isinstance(tail, dict) or tail.keys() != {"alg", "key", "signature"} or tail["alg"] != "EdDSA":
        raise BundleInvalid("its signature does not parse")
    try:
        key = load_der_public_key(_base64(tail["key"]))
    except (ValueError, UnsupportedAlgorithm) as err:
        raise BundleInvalid("its signature does not parse") from err
    if not isinstance(key, Ed25519PublicKey):
        raise BundleInvalid("its key is not Ed25519")
    try:
        key.verify(_base64(tail["signature"]), signed)
    except InvalidSignature as err:
        raise BundleInvalid("its signature does not verify") from err
    return fingerprint_of(key)


def _items(line: bytes) -> dict[str, Obtained]:
    document = _decode(line, _LIMITS)
    if not isinstance(document, dict) or document.keys() != {"items"} or not isinstance(document["items"], list):
        raise BundleInvalid("it does not hold a list of items")
    if len(document["items"]) > MAX_ITEMS:
        raise BundleInvalid(f"it holds more than {MAX_ITEMS} items")
    found = dict(_item(each) for each in document["items"])
    if [each["name"] for each in document["items"]] != sorted(found):
        raise BundleInvalid("its items are not sorted by name, or one stands twice")
    if strict_json.canonical(document) != line:
        raise BundleInvalid("it is not in canonical form")
    return found


def _item(row: Any) -> tuple[str, Obtained]:
    if not isinstance(row, dict) or row.keys() != _MEMBERS or not all(isinstance(each, str) for each in row.values()):
        raise BundleInvalid("an item does not parse")
    try:
        times = [datetime.fromisoformat(row[name]) for name in ("refresh_at", "valid_until")]
    except ValueError as err:
        raise BundleInvalid("the times of an item do not parse") from err
    if [_text(each) if each.tzinfo is not None else None for each in times] != [row["refresh_at"], row["valid_until"]]:
        raise BundleInvalid("the times of an item do not parse")
    return row["name"], Obtained(_base64(row["data"]), *times)


def _decode(line: bytes, limits: strict_json.Limits) -> Any:
    try:
        return strict_json.decode(line, limits=limits)
    except (MalformedMessage, PayloadTooLarge) as err:
        raise BundleInvalid("it is damaged") from err


def _base64(text: object) -> bytes:
    try:
        raw = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as err:
        raise BundleInvalid("a member is not base64") from err
    if base64.b64encode(raw).decode("ascii") != text:  # one spelling only
        raise BundleInvalid("a member is not base64")
    return raw


def _text(time: datetime) -> str:
    return time.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
