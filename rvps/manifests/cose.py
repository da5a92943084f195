"""COSE_Sign1 as signed manifests use it: read as far as its four parts, verified with a key that the caller trusts.

The algorithm is that of the protected header, and a key fits exactly one family of them, so that no message chooses how
its signature is checked.

Source: RFC 9052 sections 3, 4.2 and 4.4, RFC 9053 section 2, RFC 8230 section 2 (RSASSA-PSS), RFC 9360 section 2
(x5chain).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.manifests.cbor import Cbor, decode, decode_first
from rvps.manifests.corim import MAX_MANIFEST, TAGS

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

CONTENT_TYPE: Final = 3
CORIM_META: Final = 8
CWT_CLAIMS: Final = 15
X5CHAIN: Final = 33

_ALG, _CRIT = 1, 2
_HASH_ENVELOPE: Final = frozenset({258, 259, 260})
_MAX_HEADER: Final = 64 * 1024  # octets; a chain of six certificates has about 8 KiB
_MAX_SIGNATURE: Final = 2048
_MAX_HEAD: Final = 9  # octets before those of a string
_MAX_MESSAGE: Final = MAX_MANIFEST + 2 * _MAX_HEADER + _MAX_SIGNATURE
_WRAPPERS: Final = (b"\xd9\x01\xf4", b"\xd9\x01\xf6")  # tags 500 and 502
_MAX_WRAPPERS: Final = 3 * 8  # octets
_SIGN1: Final = b"\xd2\x84"  # tag 18 and an array of four, in their shortest form
_NULL: Final = b"\xf6"
_EDDSA: Final = -8
_ECDSA: Final[Mapping[int, tuple[HashAlgorithm, type[ec.EllipticCurve], int]]] = {
    -7: (SHA256(), ec.SECP256R1, 32),
    -35: (SHA384(), ec.SECP384R1, 48),
    -36: (SHA512(), ec.SECP521R1, 66),
}
"""Algorithm to its hash, its one curve and the octets of half a signature."""
_PSS: Final[Mapping[int, HashAlgorithm]] = {-37: SHA256(), -38: SHA384(), -39: SHA512()}
_KNOWN: Final = frozenset({_EDDSA, *_ECDSA, *_PSS})


@dataclass(frozen=True, slots=True)
class Sign1:
    """A message as it was read. Nothing is verified, nothing in the payload was looked at.

    header: the protected header. certificates: DER, the signing one first, from the x5chain of either header: they are
        worth what their chain is worth, wherever they stand.
    """

    algorithm: int
    header: Mapping[Any, Cbor] = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)
    protected: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def is_sign1(data: bytes) -> bool:
    """Whether the octets begin as a tagged COSE_Sign1, in wrapper tags or not. Says nothing of what follows."""
    start = _start(data)
    return data[start : start + 1] == _SIGN1[:1]


def payload_of(data: bytes) -> bytes:
    """The payload of a message whose signature is not looked at.

    Raises:
        StatementUnacceptable: not a COSE_Sign1 message with its payload inside.
    """
    return _parts(data)[2]


def read(data: bytes) -> Sign1:
    """Read a tagged COSE_Sign1 message whose payload is inside, down to its headers.

    Raises:
        SignatureRefused: not such a message, a detached payload, a hash in place of it, critical headers, a label in
            both headers, or an algorithm that is missing from the protected one or not taken here.
    """
    try:
        protected, unprotected, payload, signature = _parts(data)
        header = decode(protected, what="COSE header", tags=TAGS, max_size=_MAX_HEADER)
    except StatementUnacceptable as err:
        raise SignatureRefused(str(err)) from err
    if not isinstance(header, Mapping):
        raise SignatureRefused("COSE header: not a map")
    if _CRIT in header or _CRIT in unprotected:
        raise SignatureRefused("COSE header: critical members, none of which is understood")
    if not header.keys().isdisjoint(unprotected.keys()):
        raise SignatureRefused("COSE header: a member is both protected and not")
    if not _HASH_ENVELOPE.isdisjoint(header.keys() | unprotected.keys()):
        raise SignatureRefused("COSE: only a hash of the payload is signed; send the manifest signed as a whole")
    algorithm = header.get(_ALG)
    if algorithm is None:
        raise SignatureRefused("COSE header: no algorithm under protection")
    if type(algorithm) is not int or algorithm not in _KNOWN:
        raise SignatureRefused(
            "COSE header: an algorithm that is not taken (ES256, ES384, ES512, EdDSA, PS256, PS384, PS512 are)"
        )
    chain = header.get(X5CHAIN, unprotected.get(X5CHAIN))
    return Sign1(algorithm, header, _certificates(chain), protected, payload, signature)


def verify(message: Sign1, key: PublicKey) -> None:
    """Check the signature over protected header and payload, without external data.

    Args:
        key: trusted.

    Raises:
        SignatureRefused: the key is not of the algorithm's kind or curve, or did not sign this.
    """
    if not fits(message.algorithm, key):
        raise SignatureRefused("COSE: the algorithm of the message does not fit the signer's key")
    signed = cbor2.dumps(["Signature1", message.protected, b"", message.payload])
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            hash_, _, width = _ECDSA[message.algorithm]
            if len(message.signature) != 2 * width:
                raise SignatureRefused("COSE: the signature has a wrong length")
            r, s = (int.from_bytes(half, "big") for half in (message.signature[:width], message.signature[width:]))
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hash_))
        elif isinstance(key, rsa.RSAPublicKey):
            pss = _PSS[message.algorithm]
            key.verify(message.signature, signed, padding.PSS(padding.MGF1(pss), pss.digest_size), pss)
        else:
            key.verify(message.signature, signed)
    except InvalidSignature as err:
        raise SignatureRefused("COSE: the signature does not verify") from err


def fits(algorithm: int, key: PublicKey) -> bool:
    """Whether a key may be used with an algorithm: of its kind, and on its one curve."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return algorithm in _ECDSA and isinstance(key.curve, _ECDSA[algorithm][1])
    return algorithm in _PSS if isinstance(key, rsa.RSAPublicKey) else algorithm == _EDDSA


def _start(data: bytes) -> int:
    """Where the message begins behind the tags that older drafts put around everything."""
    start = 0
    while start < _MAX_WRAPPERS and data[start : start + 3] in _WRAPPERS:
        start += 3
    return start


def _parts(data: bytes) -> tuple[bytes, Mapping[Any, Cbor], bytes, bytes]:
    """The four parts, one by one: anybody may send a message, and but for the unprotected header, which is short, what
    stands where a string should is never built."""
    if len(data) > _MAX_MESSAGE:
        raise StatementUnacceptable(f"COSE: more than {_MAX_MESSAGE} bytes")
    position = _start(data)
    if data[position : position + 2] != _SIGN1:
        raise StatementUnacceptable("COSE: not a signed message (COSE_Sign1: tag 18, an array of four)")
    protected, position = _string(data, position + 2, _MAX_HEADER)
    window = data[position : position + _MAX_HEADER]
    unprotected, size = decode_first(window, what="COSE header", tags=TAGS)
    if not isinstance(unprotected, Mapping):
        raise StatementUnacceptable("COSE header: not a map")
    position += size
    if data[position : position + 1] == _NULL:
        raise StatementUnacceptable("COSE: the payload is detached; send the manifest signed as a whole")
    payload, position = _string(data, position, MAX_MANIFEST)
    signature, position = _string(data, position, _MAX_SIGNATURE)
    if position != len(data):
        raise StatementUnacceptable("COSE: bytes follow the message")
    return protected, unprotected, payload, signature


def _string(data: bytes, position: int, limit: int) -> tuple[bytes, int]:
    """The byte string at `position`, and where it ends."""
    if position >= len(data) or data[position] >> 5 != 2:  # major type: RFC 8949 section 3.1
        raise StatementUnacceptable("COSE: a part is not a byte string")
    window = data[position : position + limit + _MAX_HEAD]
    found, size = decode_first(window, what="COSE", tags=frozenset())
    if len(found) > limit:
        raise StatementUnacceptable(f"COSE: a part has more than {limit} bytes")
    return found, position + size


def _certificates(chain: Cbor) -> tuple[bytes, ...]:
    found = (chain,) if isinstance(chain, bytes) else chain
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not found or not all(isinstance(each, bytes) for each in found):
        raise SignatureRefused("COSE header: x5chain is not a list of certificates")
    return tuple(found)
