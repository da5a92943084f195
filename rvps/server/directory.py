"""The data directory of `rvps serve`: what is made at the first start, and read at every one.

    rvps.db  newest-event  admin-token  broker-token  [publishers.toml]  [tls/{ca.pem,server.pem,server.key}]

`newest-event` names the last event of the database: one that was put back from a backup is not used until somebody
removes it.

Folders have mode 0700 and files 0600. Nothing that exists is overwritten.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rvps.errors import SettingsUnacceptable

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43,128}")
_DAY: Final = timedelta(days=1)
_CA_LIFE: Final = 3650 * _DAY
_LEAF_LIFE: Final = 825 * _DAY
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, known by a short digest of it."""

    text: str = field(repr=False)

    @property
    def id(self) -> str:
        """Twelve hex digits of its SHA-256, for the record."""
        return sha256(self.text.encode()).hexdigest()[:12]

    def is_in(self, authorization: str | None) -> bool:
        """Whether an Authorization header brings it, in constant time."""
        scheme, _, given = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.text.encode())


@dataclass(frozen=True, slots=True)
class Directory:
    """Where things are, and who may change them: `admin` in its own name, `broker` in those of its administrators."""

    path: Path
    admin: Token
    broker: Token

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "rvps.db"

    @property
    def newest(self) -> Path:
        """What remembers the newest event outside the database."""
        return self.path / "newest-event"

    @property
    def publishers(self) -> Path:
        """Who may sign what; the operator writes it."""
        return self.path / "publishers.toml"


def open_directory(path: Path) -> Directory:
    """Make what is missing and read the tokens.

    Raises:
        SettingsUnacceptable: it cannot be made or read, or a token file holds no token of 43 characters or more.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Directory(path, _token(path / "admin-token"), _token(path / "broker-token"))
    except OSError as err:
        raise SettingsUnacceptable(f"{err.filename or path}: {err.strerror}") from err


def tls_files(path: Path, names: Sequence[str], now: datetime) -> tuple[Path, Path]:
    """Certificate and key below `path`, made with a CA of their own if there are none; `ca.pem` is for clients.

    The CA's key is not kept. To have another certificate, remove the folder and start again.

    Args:
        names: further host names and addresses for the certificate.

    Raises:
        SettingsUnacceptable: a name that is none, or files that cannot be written.
    """
    folder = path / "tls"
    certificate, key = folder / "server.pem", folder / "server.key"
    if not (certificate.exists() and key.exists()):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _make_tls(folder, names, now)
        except OSError as err:
            raise SettingsUnacceptable(f"{err.filename or folder}: {err.strerror}") from err
    return certificate, key


def _token(path: Path) -> Token:
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(32).encode() + b"\n")
    try:
        text = path.read_text("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not _TOKEN.fullmatch(text):
        raise SettingsUnacceptable(f"{path}: holds no token; remove the file, and the next start makes another")
    return Token(text)


def _write_once(path: Path, content: bytes) -> None:
    """Whole or not at all, and never over another process's."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            return
    finally:
        scratch.unlink(missing_ok=True)


def _make_tls(folder: Path, names: Sequence[str], now: datetime) -> None:
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "RVPS local CA")])
    ca = (
        _builder(ca_name, ca_name, ca_key, now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "RVPS")])
    leaf = (
        _builder(subject, ca_name, leaf_key, now, _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    for name in ("ca.pem", "server.pem", "server.key"):  # halves of an earlier attempt go with nothing
        (folder / name).unlink(missing_ok=True)
    _write_once(folder / "ca.pem", ca.public_bytes(Encoding.PEM))
    _write_once(folder / "server.pem", leaf.public_bytes(Encoding.PEM))
    _write_once(folder / "server.key", leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of clients may lag
        .not_valid_after(now + life)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys((*_ALWAYS, *names)):
        try:
            found.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            try:
                found.append(x509.DNSName(name))
            except ValueError:
                raise SettingsUnacceptable(f"{name!r} is neither an address nor a host name") from None
    return found
