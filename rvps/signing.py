"""Making signed messages: a value set, an approval or a revocation, an in-toto statement, a DSSE envelope, a message.

What is made here is what `rvps.intake.dsse` reads. Keys are PEM files (PKCS #8 or SEC 1) on P-256, P-384 or Ed25519.

Source: in-toto Statement v1; DSSE v1.0.0; rvps 3, 12.2, 12.4.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from rvps import value_set
from rvps.errors import RvpsError, StatementUnacceptable
from rvps.intake import dsse, in_toto
from rvps.messages import VERSION, write_time
from rvps.publishers.model import key_id
from rvps.strict_json import encode
from rvps.value_set import ValueSet

Algorithm = Literal["p256", "p384", "ed25519"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_MAKE: Final[Mapping[Algorithm, Callable[[], PrivateKey]]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class KeyUnusable(RvpsError):
    """A file that is no private key for signing, or a password that does not open it."""


class PasswordNeeded(KeyUnusable):
    """The key is encrypted and no password was given."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. id: `sha256:` and hex of its public half, as `rvps.publishers.model.key_id`."""

    _key: PrivateKey = field(repr=False)

    @property
    def id(self) -> str:
        return key_id(self._key.public_key())

    @property
    def public_pem(self) -> bytes:
        """SubjectPublicKeyInfo, for the file of publishers."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def private_pem(self, password: bytes | None) -> bytes:
        """PKCS #8, encrypted if there is a password."""
        lock: KeySerializationEncryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)

    def sign(self, message: bytes) -> bytes:
        """A signature by the algorithm that `rvps.intake.dsse` has for this type of key."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        digest = SHA384() if self._key.curve.name == "secp384r1" else SHA256()
        return self._key.sign(message, ec.ECDSA(digest))


def new_key(algorithm: Algorithm) -> SigningKey:
    """A fresh key."""
    return SigningKey(_MAKE[algorithm]())


def load_key(pem: bytes, password: bytes | None = None) -> SigningKey:
    """Read a private key in PEM.

    Raises:
        PasswordNeeded: it is encrypted and there is no password.
        KeyUnusable: not a private key, the wrong password, or neither P-256, P-384 nor Ed25519.
    """
    try:
        key = load_pem_private_key(pem, password)
    except TypeError as err:
        if password is None:
            raise PasswordNeeded("the key is encrypted with a password") from err
        raise KeyUnusable("the key is not encrypted, but a password was given") from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise KeyUnusable("not a private key in PEM, or not its password") from err
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey(key)
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return SigningKey(key)
    raise KeyUnusable("the key is neither on P-256 or P-384 nor Ed25519")


def values_statement(values: ValueSet, *, serial: int, expires: datetime, not_before: datetime | None = None) -> bytes:
    """The statement of a value set. Its subjects are the set's artifacts; of a set without any, the set itself.

    Raises:
        StatementUnacceptable: a serial or dates that no statement may have.
    """
    if not_before is not None and not_before >= expires:
        raise StatementUnacceptable("it would expire before it begins")
    document = value_set.write(values)
    itself = value_set.Artifact(f"{values.series}.json", {"sha256": hashlib.sha256(document).hexdigest()})
    predicate: dict[str, Any] = {
        "series": values.series,
        "serial": in_toto.check_serial(serial),
        "values": dict(values.values),
        "together": values.together,
        "knownBad": {name: list(bad) for name, bad in values.known_bad.items()},
        "expires": write_time(expires),
    }
    if values.tee is not None:
        predicate["tee"] = values.tee
    if not_before is not None:
        predicate["notBefore"] = write_time(not_before)
    subjects = [{"name": item.name, "digest": dict(item.digest)} for item in values.artifacts or (itself,)]
    return _statement(subjects, in_toto.VALUES, predicate)


def approval_statement(statement: str, serial: int | None = None) -> bytes:
    """Consent to the statement with this digest (SHA-256 of the signed bytes, lower-case hex).

    Raises:
        StatementUnacceptable: no such digest or serial.
    """
    value_set.check_digest("sha256", statement)
    predicate: dict[str, Any] = {"statement": statement}
    if serial is not None:
        predicate["serial"] = in_toto.check_serial(serial)
    return _statement([{"name": "statement", "digest": {"sha256": statement}}], in_toto.APPROVAL, predicate)


def revocation_statement(statement: str, reason: str) -> bytes:
    """The end of the statement with this digest.

    Raises:
        StatementUnacceptable: no such digest, or a reason that is not one printable line of at most 500 characters.
    """
    value_set.check_digest("sha256", statement)
    in_toto.check_reason(reason)
    predicate = {"statement": statement, "reason": reason}
    return _statement([{"name": "statement", "digest": {"sha256": statement}}], in_toto.REVOCATION, predicate)


def sign(statement: bytes, key: SigningKey) -> dict[str, Any]:
    """A DSSE envelope around a statement."""
    signature = key.sign(dsse.pae(dsse.PAYLOAD_TYPE, statement))
    return {
        "payloadType": dsse.PAYLOAD_TYPE,
        "payload": _base64(statement),
        "signatures": [{"keyid": key.id, "sig": _base64(signature)}],
    }


def message(attestation: Mapping[str, Any], kind: str = dsse.KIND, artifact: bytes | None = None) -> bytes:
    """The message that is sent, as JSON.

    Args:
        attestation: an envelope, or with `kind` `sigstore-bundle` a bundle.
        artifact: a file of values, for provenance over it.
    """
    content: Mapping[str, Any] = attestation
    if artifact is not None:
        content = {"artifact": _base64(artifact), "attestation": attestation}
    return encode({"version": VERSION, "type": kind, "payload": _base64(encode(content))})


def digest_of(statement: bytes) -> str:
    """What approvals and revocations call a statement: SHA-256 of its bytes, lower-case hex."""
    return hashlib.sha256(statement).hexdigest()


def _statement(subjects: list[dict[str, Any]], kind: str, predicate: Mapping[str, Any]) -> bytes:
    return encode(
        {"_type": in_toto.STATEMENT, "subject": subjects, "predicateType": kind, "predicate": dict(predicate)}
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
