"""Certificates change under a listener's context; handshakes in memory, without sockets."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from kbs.errors import ConfigInvalid
from kbs.web.certificate import ServedCertificate, load

_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_PASSWORD = b"secret"


class Pair:
    """A self-signed certificate and its key."""

    def __init__(self, days: int) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        self.expires = _FROM + timedelta(days=days)
        self.certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number(), _FROM, self.expires)
        ).sign(self.key, SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def encrypted(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_PASSWORD))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def old() -> Pair:
    return Pair(10)


@pytest.fixture(scope="module")
def new() -> Pair:
    return Pair(20)


@pytest.fixture
def mount(tmp_path: Path, old: Pair) -> Callable[[bytes, bytes], None]:
    """Writes files as a Secret's mount does: a new folder, and one symbolic link that is renamed to lead to it."""

    def write(certificate: bytes, key: bytes) -> None:
        folder = tmp_path / f"..{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(certificate)
        (folder / "tls.key").write_bytes(key)
        draft = tmp_path / "..draft"
        draft.symlink_to(folder.name)
        draft.rename(tmp_path / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (tmp_path / name).is_symlink():
                (tmp_path / name).symlink_to(f"..data/{name}")

    write(old.pem, old.key_pem)
    return write


@pytest.fixture
def served(tmp_path: Path, mount: Callable[[bytes, bytes], None]) -> ServedCertificate:
    return ServedCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")


def shown(
    context: ssl.SSLContext, *, name: str | None = "localhost", most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> bytes:
    """The certificate, DER, that a client is shown."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode, trusting.maximum_version = False, ssl.CERT_NONE, most
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["localhost", None], ids=["named", "unnamed"])
@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_new_certificate_is_shown_by_the_same_context(
    served: ServedCertificate,
    mount: Callable[[bytes, bytes], None],
    old: Pair,
    new: Pair,
    name: str | None,
    most: ssl.TLSVersion,
) -> None:
    assert shown(served.context, name=name, most=most) == old.der
    assert served.look() is None
    mount(new.pem, new.key_pem)
    change = served.look()
    assert change is not None
    assert change.problem is None
    assert change.loaded.expires == new.expires.timestamp()
    assert change.loaded.fingerprint == new.certificate.fingerprint(SHA256()).hex()
    assert served.look() is None
    assert shown(served.context, name=name, most=most) == new.der
    mount(old.pem, old.key_pem)
    assert served.look() is not None
    assert shown(served.context, name=name, most=most) == old.der


def test_what_does_not_go_together_changes_nothing(
    served: ServedCertificate, mount: Callable[[bytes, bytes], None], old: Pair, new: Pair
) -> None:
    for certificate, key, why in (
        (new.pem, old.key_pem, "is for another certificate"),
        (new.pem, b"", "is no plain PEM private key"),
        (new.pem, new.encrypted, "is no plain PEM private key"),
        (b"", new.key_pem, "no certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", new.key_pem, "no certificates in PEM"),
        (new.key_pem, new.pem, "no certificates in PEM"),
    ):
        mount(certificate, key)
        change = served.look()
        assert change is not None
        assert change.problem is not None
        assert why in change.problem
        assert change.loaded.expires == old.expires.timestamp()
        assert served.look() is None
        assert shown(served.context) == old.der
    mount(new.pem, new.key_pem)
    change = served.look()
    assert change is not None
    assert change.problem is None
    assert shown(served.context) == new.der


def test_files_that_are_gone_change_nothing_and_may_come_back(
    tmp_path: Path, served: ServedCertificate, mount: Callable[[bytes, bytes], None], old: Pair, new: Pair
) -> None:
    os.rename(tmp_path / "..data", tmp_path / "..elsewhere")
    change = served.look()
    assert change is not None
    assert change.problem is not None
    assert change.problem.endswith("No such file or directory")
    assert shown(served.context) == old.der
    mount(new.pem, new.key_pem)
    assert served.look() is not None
    assert shown(served.context) == new.der


def test_the_earliest_end_of_a_chain_counts(tmp_path: Path, old: Pair, new: Pair) -> None:
    (tmp_path / "chain.pem").write_bytes(new.pem + old.pem)
    (tmp_path / "key.pem").write_bytes(new.key_pem)
    assert load(tmp_path / "chain.pem", tmp_path / "key.pem").expires == old.expires.timestamp()


def test_a_broker_does_not_start_with_what_does_not_go_together(tmp_path: Path, old: Pair, new: Pair) -> None:
    (tmp_path / "tls.crt").write_bytes(new.pem)
    (tmp_path / "tls.key").write_bytes(old.key_pem)
    with pytest.raises(ConfigInvalid, match="another certificate"):
        ServedCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    with pytest.raises(ConfigInvalid, match="No such file"):
        ServedCertificate(tmp_path / "nothing.crt", tmp_path / "tls.key")
    (tmp_path / "tls.key").unlink()
    with pytest.raises(ConfigInvalid, match=r"TLS key .*No such file"):
        ServedCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")
