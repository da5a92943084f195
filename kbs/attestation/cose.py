"""Signed CBOR: bounded decoding and COSE_Sign1, for evidence that comes in it (Arm CCA, AWS Nitro).

cbor2 reads and writes; decided here is what may be read at all. By default it takes bignums of megabytes, regular
expressions, cyclic lists and whatever else a tag asks for, and says nothing of what follows the first item. Signatures
are ECDSA with the one hash and the one curve that belong to the algorithm, over a payload that is in the message.

Source: RFC 8949 (CBOR), RFC 9052 (COSE structures) section 4.2 and 4.4, RFC 9053 section 2.1, RFC 9052 section 7.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported, SignatureInvalid

Cbor = Any
"""A decoded item: int, str, bytes, bool, None, list or tuple, mapping with int or str keys, or `cbor2.CBORTag`."""

MAX_SIZE: Final = 64 * 1024  # octets; real tokens and documents have 1 to 5 KiB
MAX_DEPTH: Final = 32
TAG_SIGN1: Final = 18  # RFC 9052 section 2

_LEAVES: Final = frozenset({int, str, bytes, bool, type(None)})
_KEYS: Final = frozenset({int, str})
_ALG, _CRIT = 1, 2  # header labels, RFC 9052 section 3.1
_KTY, _KEY_ALG, _CRV, _X, _Y = 1, 3, -1, -2, -3  # key labels, RFC 9052 section 7.1 and RFC 9053 section 7.1.1
_KEY_LABELS: Final = frozenset({_KTY, 2, _KEY_ALG, 4, _CRV, _X, _Y})  # with kid and key_ops; a private part is not
_EC2: Final = 2


class Algorithm(IntEnum):
    """The signature algorithms that are taken, each with the curve of its strength (RFC 9053 section 2.1)."""

    ES256 = -7
    ES384 = -35
    ES512 = -36


@dataclass(frozen=True, slots=True)
class _Suite:
    hash: HashAlgorithm
    curve: ec.EllipticCurve
    width: int  # octets of a coordinate, and of each half of a signature


_SUITES: Final = {
    Algorithm.ES256: _Suite(SHA256(), ec.SECP256R1(), 32),
    Algorithm.ES384: _Suite(SHA384(), ec.SECP384R1(), 48),
    Algorithm.ES512: _Suite(SHA512(), ec.SECP521R1(), 66),
}
_CURVES: Final = {1: Algorithm.ES256, 2: Algorithm.ES384, 3: Algorithm.ES512}  # RFC 9053 section 7.1


class _OnlyTags(dict[int, Callable[..., Any]]):
    """Overrides every tag that is not allowed, those that cbor2 learns in future included."""

    def __init__(self, allowed: frozenset[int]) -> None:
        super().__init__()
        self._allowed = allowed

    def __missing__(self, tag: int) -> Callable[..., Any]:
        if tag in self._allowed:
            raise KeyError(tag)
        return _refuse_tag


def _refuse_tag(*_: object) -> Any:
    raise ValueError("a tag that is not expected")


def decode(
    data: bytes, *, tags: frozenset[int] = frozenset(), allow_indefinite: bool = False, max_size: int = MAX_SIZE
) -> Cbor:
    """Read exactly one CBOR item.

    Args:
        data: untrusted.
        tags: those that may occur; they come back as `cbor2.CBORTag`. None has a meaning here.
        allow_indefinite: take strings and containers of indefinite length, for writers that make them.
        max_size: octets.

    Raises:
        EvidenceMalformed: too large, more than `MAX_DEPTH` deep, not well-formed, a duplicate key, another tag,
            floating point and other rare types, keys that are neither integer nor text, or anything behind the item.
    """
    item, size = decode_first(data, tags=tags, allow_indefinite=allow_indefinite, max_size=max_size)
    if size != len(data):
        raise EvidenceMalformed("bytes follow the CBOR item")
    return item


def decode_first(
    data: bytes, *, tags: frozenset[int] = frozenset(), allow_indefinite: bool = False, max_size: int = MAX_SIZE
) -> tuple[Cbor, int]:
    """Read the CBOR item that `data` begins with; it, and how many octets it has. Else as `decode`.

    Raises:
        EvidenceMalformed.
    """
    if len(data) > max_size:
        raise EvidenceMalformed("CBOR is too large")
    stream = io.BytesIO(data)
    try:
        item = cbor2.CBORDecoder(
            stream,
            semantic_decoders=_OnlyTags(tags),
            max_depth=MAX_DEPTH,
            allow_indefinite=allow_indefinite,
            allow_duplicate_keys=False,
        ).decode()
    # Every kind of malformed input is CBORDecodeError; a repeated key that no hash can be made of is TypeError.
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as err:
        raise EvidenceMalformed("not the CBOR that is expected") from err
    _check_types(item)
    return item, stream.tell()


def _check_types(item: Cbor) -> None:
    open_items = [item]
    while open_items:
        each = open_items.pop()
        if type(each) in _LEAVES:
            continue
        if isinstance(each, list | tuple):  # asked before `Mapping`, which takes a microsecond to say no
            open_items.extend(each)
        elif isinstance(each, Mapping):
            if not all(type(key) in _KEYS for key in each):
                raise EvidenceMalformed("a CBOR map has a key that is neither integer nor text")
            open_items.extend(each.values())
        elif isinstance(each, cbor2.CBORTag):
            open_items.append(each.value)
        else:
            raise EvidenceMalformed("CBOR of a type that is not expected")


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 message as it was read. Nothing is verified."""

    algorithm: Algorithm
    payload: bytes = field(repr=False)
    protected: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_sign1(data: bytes, *, tagged: bool | None = None, allow_trailing_bytes: bool = False) -> Sign1:
    """Read a COSE_Sign1 message whose payload is inside.

    The algorithm is that of the protected header; whatever the unprotected one holds is not looked at, but it may hold
    neither an algorithm nor a label of the protected one.

    Args:
        data: untrusted.
        tagged: with tag 18, without it, or None: either.
        allow_trailing_bytes: ignore what follows the message.

    Raises:
        EvidenceMalformed: not such a message, a detached payload, or critical headers.
        EvidenceVersionUnsupported: another algorithm than those of `Algorithm`.
    """
    tags = frozenset() if tagged is False else frozenset({TAG_SIGN1})
    item = decode_first(data, tags=tags)[0] if allow_trailing_bytes else decode(data, tags=tags)
    if tagged and not isinstance(item, cbor2.CBORTag):
        raise EvidenceMalformed("COSE_Sign1 without its tag")
    message = item.value if isinstance(item, cbor2.CBORTag) else item
    if not isinstance(message, list | tuple) or len(message) != 4:
        raise EvidenceMalformed("COSE_Sign1 is not an array of four")
    protected, unprotected, payload, signature = message
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise EvidenceMalformed("COSE_Sign1 with a part that is no byte string, or a detached payload")
    return Sign1(_algorithm(protected, unprotected), payload, protected, signature)


def _algorithm(protected: bytes, unprotected: Cbor) -> Algorithm:
    header = decode(protected)
    if not isinstance(header, Mapping) or not isinstance(unprotected, Mapping):
        raise EvidenceMalformed("COSE header is not a map")
    if _CRIT in header or _CRIT in unprotected:
        raise EvidenceMalformed("COSE message with critical headers, none of which is understood")
    if _ALG in unprotected or not header.keys().isdisjoint(unprotected.keys()):
        raise EvidenceMalformed("COSE message with a header in both places, or an algorithm that is not protected")
    algorithm = header.get(_ALG)
    if algorithm is None:
        raise EvidenceMalformed("COSE message names no algorithm")
    if type(algorithm) is not int or algorithm not in _SUITES:
        raise EvidenceVersionUnsupported("COSE message of an algorithm that is not allowed")
    return Algorithm(algorithm)


def verify_sign1(message: Sign1, key: ec.EllipticCurvePublicKey) -> None:
    """Check the signature over protected header and payload; no external data.

    Args:
        key: trusted.

    Raises:
        SignatureInvalid: the key is on another curve than the algorithm's, or did not sign this.
    """
    suite = _SUITES[message.algorithm]
    if key.curve.name != suite.curve.name:
        raise SignatureInvalid("the algorithm of the COSE message does not fit its key")
    if len(message.signature) != 2 * suite.width:
        raise SignatureInvalid("signature of the COSE message has a wrong length")
    r = int.from_bytes(message.signature[: suite.width], "big")
    s = int.from_bytes(message.signature[suite.width :], "big")
    signed = cbor2.dumps(["Signature1", message.protected, b"", message.payload])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(suite.hash))
    except InvalidSignature as err:
        raise SignatureInvalid("signature of the COSE message does not verify") from err


def read_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read an encoded COSE_Key: an uncompressed point on P-256, P-384 or P-521.

    Raises:
        EvidenceMalformed: anything else, a key with other members or for another algorithm than its curve's included.
    """
    key = decode(data)
    if not isinstance(key, Mapping) or not key.keys() <= _KEY_LABELS or key.get(_KTY) != _EC2:
        raise EvidenceMalformed("not a COSE key on an elliptic curve")
    algorithm = _CURVES.get(key[_CRV]) if type(key.get(_CRV)) is int else None
    if algorithm is None or key.get(_KEY_ALG, algorithm) != algorithm:
        raise EvidenceMalformed("COSE key of a curve or algorithm that is not allowed")
    x, y = key.get(_X), key.get(_Y)
    width = _SUITES[algorithm].width
    if not isinstance(x, bytes) or not isinstance(y, bytes) or not len(x) == len(y) == width:
        raise EvidenceMalformed("COSE key with a coordinate of a wrong length")
    return read_point(algorithm, b"\x04" + x + y)


def read_point(algorithm: Algorithm, encoded: bytes) -> ec.EllipticCurvePublicKey:
    """Read a public key on the algorithm's curve: 04, x and y (SEC 1 section 2.3.3).

    Raises:
        EvidenceMalformed: not an uncompressed point of that curve.
    """
    if encoded[:1] != b"\x04":
        raise EvidenceMalformed("the key is not an uncompressed point")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_SUITES[algorithm].curve, encoded)
    except ValueError as err:
        raise EvidenceMalformed("the key is not a point on its curve") from err
