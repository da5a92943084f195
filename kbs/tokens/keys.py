"""Our own signing keys: files, key ids, rotation, and the JWK set that others verify our tokens with.

One key signs; it and those beside it verify, as long as they are configured. Key files are PEM, made with mode 0600
before the first octet is written (threat-model P-KEY-1).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from kbs.errors import ConfigInvalid
from kbs.storage.private_files import open_private, sync_directory
from kbs.tokens.jose import PrivateKey
from kbs.tokens.jwk import public_jwk, thumbprint

OwnPublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_MAX_KEY_FILE: Final = 64 << 10  # octets
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]{1,40})-----\s[A-Za-z0-9+/=\s]*-----END \1-----")
_MAX_CHAIN: Final = 5  # certificates (threat-model P-JOSE-2)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs tokens.

    kid: RFC 7638 thumbprint. alg: `ES256` or `EdDSA`. x5c: DER certificates in standard base64, leaf first; empty
        without a signer chain.
    """

    private: PrivateKey = field(repr=False)
    kid: str
    alg: str
    x5c: tuple[str, ...] = ()

    @property
    def public(self) -> OwnPublicKey:
        """The half that verifies."""
        return self.private.public_key()

    def jwk(self) -> dict[str, Any]:
        """The public JWK as in token headers: no `kid`, with `x5c` when there is a chain."""
        return {**public_jwk(self.public), **({"x5c": list(self.x5c)} if self.x5c else {})}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key of ours that does not sign here. kid: RFC 7638 thumbprint."""

    public: OwnPublicKey
    kid: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key that signs, and others whose tokens are ours as well: former ones, and the one to come.

    Raises:
        ConfigInvalid: the same key stands twice.
    """

    signing: SigningKey
    others: tuple[VerifyingKey, ...] = ()

    def __post_init__(self) -> None:
        kids = [self.signing.kid, *(key.kid for key in self.others)]
        if len(set(kids)) != len(kids):
            raise ConfigInvalid("token keys: the same key stands twice")

    def jwks(self) -> dict[str, Any]:
        """The JWK set document (RFC 7517 section 5): every key that verifies, the signing one first."""
        signing = {**self.signing.jwk(), "kid": self.signing.kid}
        others = [{**public_jwk(key.public), "kid": key.kid} for key in self.others]
        return {"keys": [signing, *others]}


def signing_key(private: PrivateKey, chain: Sequence[x509.Certificate] = ()) -> SigningKey:
    """Wrap a private key, with the certificates that endorse it.

    Raises:
        ConfigInvalid: a leaf that certifies another key, or a chain nobody would accept for its length.
    """
    public = private.public_key()
    if len(chain) > _MAX_CHAIN:
        raise ConfigInvalid(f"signer chain: more than {_MAX_CHAIN} certificates")
    if chain and chain[0].public_key() != public:
        raise ConfigInvalid("signer chain: the first certificate is for another key than the token key")
    jwk = public_jwk(public)
    x5c = tuple(base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii") for certificate in chain)
    return SigningKey(private, thumbprint(jwk), jwk["alg"], x5c)


def load_token_key(path: Path, chain: Path | None = None) -> SigningKey:
    """Read the key of attestation tokens: P-256, PEM, PKCS#8 or SEC1, not encrypted.

    Args:
        path: the private key.
        chain: certificates in PEM, leaf first.

    Raises:
        ConfigInvalid: not readable, another kind of key, or a chain that does not fit.
    """
    key = load_signing_key(path)
    if key.alg != "ES256":
        raise ConfigInvalid(f"{path.name}: token keys are EC P-256")
    if chain is None:
        return key
    try:
        certificates = x509.load_pem_x509_certificates(_read(chain))
    except ValueError:
        raise ConfigInvalid(f"{chain.name}: no PEM certificates") from None
    return signing_key(key.private, certificates)


def load_signing_key(path: Path) -> SigningKey:
    """Read a P-256 or Ed25519 private key (admin tokens take either).

    Raises:
        ConfigInvalid: not readable, encrypted, or another kind of key.
    """
    try:
        private = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{path.name}: no plain PEM private key") from None
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return signing_key(private)
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return signing_key(private)
    raise ConfigInvalid(f"{path.name}: signing keys are EC P-256 or Ed25519")


def load_verifying_keys(path: Path) -> tuple[VerifyingKey, ...]:
    """Read the keys of ours that verify and do not sign: P-256, one PEM after the other, public or still private.

    Raises:
        ConfigInvalid: not readable, nothing in it, something else than keys, or another kind of key.
    """
    content = _read(path)
    found = [match for match in _PEM.finditer(content) if match[1] != b"EC PARAMETERS"]  # of openssl; nothing new in it
    if not found or _PEM.sub(b"", content).strip():
        raise ConfigInvalid(f"{path.name}: to hold keys in PEM and nothing else")
    return tuple(_verifying_key(path.name, block[0]) for block in found)


def _verifying_key(name: str, pem: bytes) -> VerifyingKey:
    try:
        public: object = (
            load_pem_private_key(pem, password=None).public_key() if b"PRIVATE KEY" in pem else load_pem_public_key(pem)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{name}: no plain PEM key") from None
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return VerifyingKey(public, thumbprint(public_jwk(public)))
    raise ConfigInvalid(f"{name}: token keys are EC P-256")


def generate_token_key(path: Path) -> SigningKey:
    """Make a new P-256 key at `path` (PKCS#8 PEM, mode 0600). A file that stands there is never overwritten.

    Raises:
        FileExistsError: there is a file already.
    """
    return _generate(path, ec.generate_private_key(ec.SECP256R1()))


def generate_admin_key(path: Path) -> SigningKey:
    """Make a new Ed25519 key at `path`, as `generate_token_key` does."""
    return _generate(path, ed25519.Ed25519PrivateKey.generate())


def _generate(path: Path, private: PrivateKey) -> SigningKey:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private_file(path, pem)
    return signing_key(private)


def write_private_file(path: Path, content: bytes) -> None:
    """Create a file with mode 0600, complete or not at all, also under a crash or a race.

    Raises:
        FileExistsError: there is a file already; it is left as it is.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, fails when the name is taken
    finally:
        draft.unlink()
    sync_directory(path.parent)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_FILE + 1)
    except OSError as err:
        raise ConfigInvalid(f"{path.name}: {err.strerror}") from err
    if len(content) > _MAX_KEY_FILE:
        raise ConfigInvalid(f"{path.name}: too large for a key or a chain")
    return content
