"""A publisher's certificates, made up: root, issuing CA and leaf, each of which a test can bend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
_LONG = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))


@cache
def key(number: int, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """The same key for the same number, in every process."""
    return ec.derive_private_key(number, curve())


@dataclass(frozen=True)
class Certificate:
    """One certificate to be made. usage: whether it may sign documents and certificates."""

    subject: str
    key: PrivateKey
    is_ca: bool = True
    path_length: int | None = None
    start: datetime = _LONG[0]
    end: datetime = _LONG[1]
    signs_documents: bool = False
    signs_certificates: bool = True
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    @cache  # noqa: B019  (a signature is another one each time; a handful of values for the life of a test run)
    def issued_by(self, issuer: Certificate) -> x509.Certificate:
        usage = x509.KeyUsage(
            self.signs_documents, False, False, False, False, self.signs_certificates, False, False, False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.subject))
            .issuer_name(_name(issuer.subject))
            .public_key(self.key.public_key())
            .serial_number(1000 + len(self.subject))
            .not_valid_before(self.start)
            .not_valid_after(self.end)
            .add_extension(x509.BasicConstraints(self.is_ca, self.path_length if self.is_ca else None), True)
            .add_extension(usage, True)
        )
        for extension, critical in self.extra:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer.key, SHA384())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


ROOT = Certificate("Test RIM Root", key(11))
CA = Certificate("Test RIM CA", key(12), path_length=0)
LEAF = Certificate(
    "Test RIM Signer", key(13), is_ca=False, start=START, end=END, signs_documents=True, signs_certificates=False
)


@dataclass(frozen=True)
class Chain:
    """Three links; `replace` of the standard library bends one."""

    root: Certificate = ROOT
    ca: Certificate = CA
    leaf: Certificate = LEAF

    def with_leaf(self, **changes: object) -> Chain:
        return replace(self, leaf=replace(self.leaf, **changes))  # type: ignore[arg-type]

    def with_ca(self, **changes: object) -> Chain:
        return replace(self, ca=replace(self.ca, **changes))  # type: ignore[arg-type]

    @property
    def root_certificate(self) -> x509.Certificate:
        return self.root.issued_by(self.root)

    @property
    def certificates(self) -> list[x509.Certificate]:
        """Leaf first, root last, as vendors send them."""
        return [self.leaf.issued_by(self.ca), self.ca.issued_by(self.root), self.root_certificate]

    @property
    def der(self) -> list[bytes]:
        return [each.public_bytes(Encoding.DER) for each in self.certificates]


CHAIN = Chain()
