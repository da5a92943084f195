"""DSSE envelopes signed with a publisher's key: the signature first, what was signed afterwards.

Which algorithm a signature has is decided by the type of the key alone, never by the message:

    P-256    ECDSA with SHA-256, DER
    P-384    ECDSA with SHA-384, DER
    Ed25519  as it is
    RSA      from 3072 bits on, SHA-256 with PKCS #1 v1.5 (what cosign makes) or PSS (what in-toto's own tools make)

securesystemslib, which has an envelope class too, is not used: it takes `keyid` as a condition, and the DSSE
specification (and this module) as a hint; envelopes of cosign have an empty one.

Source: DSSE v1.0.0, protocol.md and envelope.md; rvps 12.4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from rvps.errors import SignatureRefused
from rvps.intake import in_toto
from rvps.intake.model import MAX_MESSAGE, Approval, Content, Revocation, Verified
from rvps.publishers.model import KnownKey, PublicKey, Publishers
from rvps.strict_json import NotStrictJson, decode

KIND: Final = "dsse"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES: Final = 4
"""Each costs one verification for each known key, and anybody may send a message."""

_RSA_SCHEMES: Final = (padding.PKCS1v15(), padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO))
_MAX_DEPTH: Final = 8
_MAX_TOKENS: Final = 10_000  # a Sigstore bundle with its log entry and proof has about a hundred
_MAX_SIGNATURE_TEXT: Final = 2048  # characters; RSA with 8192 bits has 1368


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope. keyid: what the signer calls its key, unsigned and untrusted."""

    keyid: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope, not verified. payload: the bytes that are signed, undecoded."""

    payload_type: str
    payload: bytes = field(repr=False)
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Dsse:
    """`rvps.intake.model.Intake` of the message type `dsse`.

    The message is an envelope, or `{"artifact": base64, "attestation": envelope}` where a file of values travels with
    its provenance (rvps 13.1).
    """

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:  # noqa: ARG002
        """Find the publisher one of whose keys made at least one of the signatures; signatures of others are ignored.

        Raises:
            SignatureRefused: no such envelope, no signature by a publisher's key, signatures by two publishers, or by
                one that may not send this type.
        """
        document, artifact = unwrap(payload)
        envelope = read_envelope(document)
        signer = find_signer(envelope, publishers)
        return in_toto.Attested(
            publisher=signer.publisher,
            signer=signer.id,
            kind=KIND,
            content=envelope.payload,
            digest=hashlib.sha256(envelope.payload).hexdigest(),
            signed_at=None,
            artifact=artifact,
        )

    def extract(self, verified: Verified, at: datetime) -> Content | Approval | Revocation:
        """Read the in-toto statement: see `rvps.intake.in_toto.read`."""
        return in_toto.read(verified, at)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what a DSSE signature is over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def unwrap(payload: bytes) -> tuple[Mapping[str, Any], bytes | None]:
    """The attestation as a JSON object, and the file that came with it, if one did.

    Raises:
        SignatureRefused: larger than a message may be, or not one of the two forms.
    """
    if len(payload) > MAX_MESSAGE:
        raise SignatureRefused(f"the message has more than {MAX_MESSAGE} bytes")
    try:
        document = decode(payload, max_bytes=MAX_MESSAGE, max_depth=2 * _MAX_DEPTH, max_tokens=_MAX_TOKENS)
    except NotStrictJson as err:
        raise SignatureRefused(f"signed message: {err}") from err
    if not isinstance(document, dict):
        raise SignatureRefused("signed message: not a JSON object")
    if document.keys() != {"artifact", "attestation"}:
        return document, None
    if not isinstance(document["attestation"], dict):
        raise SignatureRefused("signed message: `attestation` is not an object")
    return document["attestation"], unbase64(document["artifact"], "artifact")


def read_envelope(document: Mapping[str, Any]) -> Envelope:
    """The envelope of a JSON object. Members that DSSE does not know are ignored, as it asks.

    Raises:
        SignatureRefused: a member missing or of another form, another payload type, or more than 4 signatures.
    """
    if document.get("payloadType") != PAYLOAD_TYPE:
        raise SignatureRefused(f"DSSE envelope: `payloadType` is not {PAYLOAD_TYPE}")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise SignatureRefused(f"DSSE envelope: `signatures` is not an array of 1 to {MAX_SIGNATURES}")
    return Envelope(
        PAYLOAD_TYPE, unbase64(document.get("payload"), "payload"), tuple(_signature(item) for item in signatures)
    )


def find_signer(envelope: Envelope, publishers: Publishers) -> KnownKey:
    """The key that made a signature of the envelope, with its publisher.

    Raises:
        SignatureRefused: see `Dsse.verify`.
    """
    message = pae(envelope.payload_type, envelope.payload)
    signed = _Signed(message, hashlib.sha256(message).digest(), hashlib.sha384(message).digest())
    signers: dict[str, KnownKey] = {}
    for signature in envelope.signatures:
        for known in _likely_first(publishers, signature.keyid):
            if _is_signature(known.key, signature.value, signed):
                signers.setdefault(known.publisher.name, known)
                break
    if not signers:
        raise SignatureRefused("DSSE envelope: no signature is by a key of a publisher")
    if len(signers) > 1:
        raise SignatureRefused(
            f"DSSE envelope: signed by several publishers ({', '.join(sorted(signers))}), not by one"
        )
    (signer,) = signers.values()
    if KIND not in signer.publisher.types:
        raise SignatureRefused(f"publisher {signer.publisher.name!r} may not send messages of type {KIND}")
    return signer


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a signature is over, hashed once and not for each key: a message may be large, and keys many."""

    message: bytes = field(repr=False)
    sha256: bytes
    sha384: bytes


def _is_signature(key: PublicKey, signature: bytes, signed: _Signed) -> bool:
    """Whether `signature` is one of `key`, by the algorithm of its type."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed.message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            is_p384 = key.curve.name == "secp384r1"
            digest, algorithm = (signed.sha384, SHA384()) if is_p384 else (signed.sha256, SHA256())
            key.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
        else:
            return any(_is_rsa_signature(key, signature, signed.sha256, scheme) for scheme in _RSA_SCHEMES)
    except InvalidSignature:
        return False
    return True


def _is_rsa_signature(key: RSAPublicKey, signature: bytes, digest: bytes, scheme: AsymmetricPadding) -> bool:
    try:
        key.verify(signature, digest, scheme, Prehashed(SHA256()))
    except InvalidSignature:
        return False
    return True


def unbase64(text: object, member: str) -> bytes:
    """Base64 in its one form: standard or URL-safe alphabet, padded, no unused bits set.

    Raises:
        SignatureRefused: anything else.
    """
    if not isinstance(text, str):
        raise SignatureRefused(f"signed message: `{member}` is missing or not a string")
    alphabet = b"-_" if "-" in text or "_" in text else b"+/"
    try:
        raw = base64.b64decode(text, altchars=alphabet, validate=True)
    except (binascii.Error, ValueError) as err:
        raise SignatureRefused(f"signed message: `{member}` is not padded base64") from err
    if base64.b64encode(raw, altchars=alphabet).decode() != text:
        raise SignatureRefused(f"signed message: `{member}` is not base64 in its one form")
    return raw


def _signature(item: object) -> Signature:
    if not isinstance(item, dict):
        raise SignatureRefused("DSSE envelope: a signature is not an object")
    keyid, text = item.get("keyid", ""), item.get("sig")
    if not isinstance(keyid, str):
        raise SignatureRefused("DSSE envelope: `keyid` is not a string")
    if isinstance(text, str) and len(text) > _MAX_SIGNATURE_TEXT:
        raise SignatureRefused("DSSE envelope: `sig` is longer than any signature")
    return Signature(keyid, unbase64(text, "sig"))


def _likely_first(publishers: Publishers, keyid: str) -> Iterable[KnownKey]:
    hinted = publishers.keys.get(keyid)
    if hinted is not None:
        yield hinted
    for known in publishers.keys.values():
        if known is not hinted:
            yield known
