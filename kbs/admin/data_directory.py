"""Makes a data directory: settings, TLS material, keys, an admin token. Never overwrites anything.

    kbs.toml  tls/{ca.pem,server.pem,server.key}  keys/  store/  audit/  audit-head  admin-token

The TLS leaf is never a CA certificate: the field's guests refuse one (kbs-protocol 12.1).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authorization import Roles
from kbs.errors import ConfigInvalid
from kbs.storage.private_files import make_private_directory
from kbs.tokens.keys import SigningKey, generate_admin_key, generate_token_key, write_private_file

_DAY = timedelta(days=1)
_CA_LIFE = 3650 * _DAY
_LEAF_LIFE = 825 * _DAY
_ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Made:
    """What `make` made."""

    data: Path
    ca: Path | None
    admin_token: Path
    settings: Path


def make(
    data: Path,
    *,
    names: Sequence[str],
    tees: Sequence[str],
    insecure_sample: bool,
    insecure_http: bool,
    insecure_test_root: Path | None = None,
    dsn_file: Path | None = None,
    token_lifetime: timedelta,
    now: datetime,
) -> Made:
    """Fill an empty or missing directory.

    Args:
        names: further host names and addresses for the TLS leaf.
        tees: TEEs to enable beside the sample ones.
        insecure_test_root: folder of make-believe vendors to trust, as in the settings.
        dsn_file: keep rules and claims in the PostgreSQL database whose address is in this file.

    Raises:
        ConfigInvalid: there is a data directory already, or the directory is not empty.
        OSError: it cannot be written.
    """
    if data.exists() and any(data.iterdir()):
        what = "is a data directory already" if (data / "kbs.toml").exists() else "is not empty"
        raise ConfigInvalid(f"{data} {what}; nothing was changed")
    for folder in (data, data / "keys", data / "store", data / "audit", data / "tls"):
        make_private_directory(folder)
    admin_key = _make_keys(data / "keys")
    make_tls(data / "tls", names, now)
    _make_token(data / "admin-token", admin_key, token_lifetime, now)
    settings = _settings_text(
        tees, insecure_sample=insecure_sample, insecure_http=insecure_http, insecure_test_root=insecure_test_root
    )
    if dsn_file is not None:
        settings += f'\n[storage]\nkind = "postgres"\ndsn_file = {json.dumps(str(dsn_file.absolute()))}\n'
    write_private_file(data / "kbs.toml", settings.encode())
    return Made(data, None if insecure_http else data / "tls/ca.pem", data / "admin-token", data / "kbs.toml")


def make_keys(folder: Path, *, token_lifetime: timedelta, now: datetime) -> Path:
    """Fill an empty or missing directory with the five key files, named as in the settings' defaults, and a token.

    For brokers that share their keys and have none of their own: replicas, whose keys are mounted read-only from one
    place. Returns the file of the admin token.

    Raises:
        ConfigInvalid: the directory is not empty.
        OSError: it cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigInvalid(f"{folder} is not empty; nothing was changed")
    make_private_directory(folder)
    token = folder / "admin-token"
    _make_token(token, _make_keys(folder), token_lifetime, now)
    return token


def _make_keys(folder: Path) -> SigningKey:
    """The keys of a broker; returns that of admin tokens."""
    write_private_file(folder / "sealing.key", secrets.token_bytes(32))
    write_private_file(folder / "session.key", secrets.token_bytes(32))
    generate_token_key(folder / "token.pem")
    generate_admin_key(folder / "audit.pem")
    return generate_admin_key(folder / "admin.pem")


def _make_token(path: Path, key: SigningKey, lifetime: timedelta, now: datetime) -> None:
    token = AdminTokenMint(key, AdminTokenSettings(), Roles(), lambda: now).mint("admin", "admin", lifetime)
    write_private_file(path, token.text.encode() + b"\n")


def _settings_text(
    tees: Sequence[str], *, insecure_sample: bool, insecure_http: bool, insecure_test_root: Path | None
) -> str:
    enabled = [*tees, *(("sample", "sampledevice") if insecure_sample else ())]
    listed = ", ".join(f'"{tee}"' for tee in enabled)
    lines = [
        "# Settings of this broker; docs/settings.md lists them all.",
        "",
        "[server]",
        'listen = ["127.0.0.1:8080"]',
    ]
    if insecure_http:
        lines.append("insecure_http = true      # plain HTTP: for tests on this machine")
    lines += ["", "[attestation]", f"tees = [{listed}]"]
    if insecure_sample:
        lines.append("insecure_sample = true    # software TEE: anyone can forge its evidence")
    if insecure_test_root is not None:
        lines.append(f'insecure_test_root = "{insecure_test_root}"    # make-believe vendors: who has it can forge')
    lines += [
        "",
        "# Reference values are kept here, unless a service of its own has them (docs/reference-values/service.md):",
        "# [references]",
        '# url = "https://rvps.example:50004"',
        '# token_file = "rvps-token"   # copy of its broker-token',
        '# ca_file = "rvps-ca.pem"     # copy of its tls/ca.pem',
    ]
    return "\n".join(lines) + "\n"


def make_tls(folder: Path, names: Sequence[str], now: datetime) -> None:
    """`ca.pem`, whose key is forgotten, and `server.pem` with `server.key`, in a folder that is there.

    Raises:
        ConfigInvalid: a name that is none.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KBS local CA")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KBS")])
    leaf = (
        _builder(leaf_name, ca_name, leaf_key.public_key(), now, _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    pem = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private_file(folder / "server.key", pem)
    write_private_file(folder / "server.pem", leaf.public_bytes(Encoding.PEM))
    write_private_file(folder / "ca.pem", ca.public_bytes(Encoding.PEM))
    os.chmod(folder / "ca.pem", 0o644)  # public, for guests and clients


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of guests may lag
        .not_valid_after(now + life)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
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
                raise ConfigInvalid(f"{name!r} is neither an address nor a host name") from None
    return found
