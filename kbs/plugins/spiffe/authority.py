"""The trust domain's authority: an X.509 CA and a JWT key, and what others verify with beside them.

Sources: X509-SVID sections 2 to 5, JWT-SVID sections 2 and 3, SPIFFE Trust Domain and Bundle section 4.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from kbs.errors import ConfigInvalid, MalformedMessage, StorageUnavailable
from kbs.protocol import base64url
from kbs.tokens.jose import sign
from kbs.tokens.jwk import public_jwk, thumbprint
from kbs.tokens.keys import SigningKey, load_signing_key

GuestKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
BEFORE: Final = timedelta(seconds=60)
"""How long before now certificates begin: guests' clocks may be behind."""
_MAX_REQUEST: Final = 16 << 10  # octets of a CSR


@dataclass(frozen=True, slots=True)
class Beside:
    """Others verify with this too: keys before the ones that sign, or after them. root, jwk: either may be absent."""

    root: x509.Certificate | None = None
    kid: str | None = None
    jwk: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """Keys of a trust domain. chain: the CA that signs first, the root last.

    beside: the rest of the bundle. ends: when these keys leave the bundle, None: nobody knows; nothing that they sign
    outlives it. sequence: a number that grows with every change of the bundle, where there is one.
    """

    domain: str
    ca_key: SigningKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    jwt_key: SigningKey = field(repr=False)
    beside: tuple[Beside, ...] = ()
    ends: datetime | None = None
    sequence: int | None = None

    def x509_svid(self, spiffe_id: str, key: GuestKey, now: datetime, life: timedelta) -> tuple[str, datetime]:
        """A certificate chain without the root, PEM, and when it ends.

        Raises:
            StorageUnavailable: the authority's own certificate is not valid now.
        """
        issuer = self.chain[0]
        if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
            raise StorageUnavailable("no identities now", operator_detail="spiffe: the CA certificate is not valid now")
        end = min(self._end(now + life), issuer.not_valid_after_utc)
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        leaf = (
            x509.CertificateBuilder(issuer.subject, x509.Name([]), key, x509.random_serial_number())
            .not_valid_before(max(now - BEFORE, issuer.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(name, critical=True)  # RFC 5280 4.2.1.6: critical beside an empty subject
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
            .sign(self.ca_key.private, hashes.SHA256())
        )
        below_root = [each for each in self.chain if each.subject != each.issuer]
        return "".join(certificate_pem(each) for each in (leaf, *below_root)), end

    def jwt_svid(self, spiffe_id: str, audience: Sequence[str], now: datetime, life: timedelta) -> tuple[str, datetime]:
        """A compact JWS and when it ends."""
        end = self._end(now + life)
        header = {"alg": self.jwt_key.alg, "kid": self.jwt_key.kid, "typ": "JWT"}
        claims = {"sub": spiffe_id, "aud": list(audience), "iat": int(now.timestamp()), "exp": int(end.timestamp())}
        parts = b".".join(
            base64url.encode(json.dumps(each, separators=(",", ":")).encode("ascii")) for each in (header, claims)
        )
        return (parts + b"." + base64url.encode(sign(self.jwt_key.private, parts))).decode("ascii"), end

    def bundle_pem(self) -> str:
        """The roots: the one of the keys that sign, then the others."""
        return "".join(certificate_pem(each) for each in self._roots())

    def _end(self, wished: datetime) -> datetime:
        return wished if self.ends is None else min(wished, self.ends)

    def _roots(self) -> Sequence[x509.Certificate]:
        return [self.chain[-1], *(each.root for each in self.beside if each.root is not None)]

    def bundle(self, refresh_seconds: int) -> Mapping[str, Any]:
        """The bundle as a JWK set."""
        roots = [{"use": "x509-svid", **signing_key_jwk(each), "x5c": [_x5c(each)]} for each in self._roots()]
        own = {"use": "jwt-svid", "kid": self.jwt_key.kid, **self.jwt_key.jwk()}
        others = [{"use": "jwt-svid", "kid": each.kid, **each.jwk} for each in self.beside if each.jwk is not None]
        numbered = {} if self.sequence is None else {"spiffe_sequence": self.sequence}
        return {"keys": [*roots, own, *others], **numbered, "spiffe_refresh_hint": refresh_seconds}


def _x5c(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")


def signing_key_jwk(certificate: x509.Certificate) -> Mapping[str, str]:
    """Type, curve and coordinates of a root's key."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        name, width = _CURVES[key.curve.name]
        point = key.public_numbers()
        x, y = (base64url.encode(each.to_bytes(width, "big")).decode("ascii") for each in (point.x, point.y))
        return {"kty": "EC", "crv": name, "x": x, "y": y}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        parts = (each.to_bytes((each.bit_length() + 7) // 8, "big") for each in (numbers.n, numbers.e))
        n, e = (base64url.encode(each).decode("ascii") for each in parts)
        return {"kty": "RSA", "n": n, "e": e}
    raise ConfigInvalid("spiffe: the root's key is neither EC P-256, P-384 nor RSA")


_CURVES: Final = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48)}


def requested_key(request: bytes) -> GuestKey:
    """The key in a certificate signing request (PKCS #10, PEM or DER) that its owner signed. Nothing else of it counts.

    Raises:
        MalformedMessage: no such request, not signed by its key, or a key too weak or of another kind.
    """
    if len(request) > _MAX_REQUEST:
        raise MalformedMessage("the certificate request is too long")
    try:
        load = x509.load_pem_x509_csr if request.lstrip().startswith(b"-----BEGIN") else x509.load_der_x509_csr
        parsed = load(request)
        signed, key = parsed.is_signature_valid, parsed.public_key()
    except Exception as err:
        raise MalformedMessage("expected a certificate signing request, PKCS #10, PEM or DER") from err
    if not signed:
        raise MalformedMessage("the certificate request is not signed by its key")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise MalformedMessage("keys are EC P-256, P-384, Ed25519 or RSA of 2048 to 4096 bits")


def authority_from_files(domain: str, certificate: Path, key: Path, jwt_key: SigningKey) -> Authority:
    """An authority of the operator.

    Raises:
        ConfigInvalid: files that cannot be read, a certificate that is no CA, for another key or trust domain.
    """
    chain = _certificates(certificate)
    ca_key = load_signing_key(key)
    if ca_key.alg != "ES256" or chain[0].public_key() != ca_key.public:
        raise ConfigInvalid("spiffe: ca_key is EC P-256, and the first of ca_certificate is for it")
    _check_ca(chain[0], domain)
    for below, above in pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except Exception as err:
            raise ConfigInvalid("spiffe: ca_certificate is no chain, the signing CA first") from err
    signing_key_jwk(chain[-1])
    if jwt_key.alg != "ES256" or jwt_key.public == ca_key.public:
        raise ConfigInvalid("spiffe: jwt_key is EC P-256, and another key than the CA's")
    return Authority(domain, ca_key, chain, jwt_key)


def beside_from_files(roots: Sequence[Path], jwt_keys: Sequence[Path]) -> tuple[Beside, ...]:
    """What an operator adds to the bundle: root certificates, and public keys of JWT-SVIDs, all PEM.

    Raises:
        ConfigInvalid: files that cannot be read or hold something else.
    """
    found: list[Beside] = []
    for path in roots:
        for certificate in _certificates(path):
            signing_key_jwk(certificate)
            found.append(Beside(root=certificate))
    for path in jwt_keys:
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as err:
            raise ConfigInvalid(f"spiffe: {path}: {err.strerror}") from None
        except ValueError:
            raise ConfigInvalid(f"spiffe: {path}: expected a public key, PEM") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ConfigInvalid(f"spiffe: {path}: keys of JWT-SVIDs are EC P-256")
        jwk = public_jwk(key)
        found.append(Beside(kid=thumbprint(jwk), jwk=jwk))
    return tuple(found)


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except OSError as err:
        raise ConfigInvalid(f"spiffe: {path}: {err.strerror}") from None
    except ValueError:
        raise ConfigInvalid(f"spiffe: {path}: expected certificates, PEM") from None


def _check_ca(certificate: x509.Certificate, domain: str) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        raise ConfigInvalid("spiffe: ca_certificate lacks basic constraints, key usage or a key identifier") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise ConfigInvalid("spiffe: ca_certificate is no CA")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    if names.get_values_for_type(x509.UniformResourceIdentifier) not in ([], [f"spiffe://{domain}"]):
        raise ConfigInvalid("spiffe: ca_certificate is for another trust domain")


def new_guest_key() -> tuple[ec.EllipticCurvePublicKey, str]:
    """A key for a guest that cannot make one: the public half, and the private one as PKCS #8 PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    return private.public_key(), private_pem(private).decode("ascii")


def private_pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key, PKCS #8."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> str:
    """One certificate."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    """All off but these; whoever signs certificates signs CRLs."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
