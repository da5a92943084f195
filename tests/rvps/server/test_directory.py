"""What the first start makes, and what later ones refuse."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from rvps.errors import SettingsUnacceptable
from rvps.server.directory import Token, open_directory, tls_files

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def test_tokens_are_made_once_and_privately(tmp_path: Path) -> None:
    first = open_directory(tmp_path / "a/b")
    assert first == open_directory(tmp_path / "a/b")
    assert first.admin != first.broker
    for name in ("admin-token", "broker-token"):
        assert stat.S_IMODE((first.path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    assert {path.name for path in first.path.iterdir()} == {"admin-token", "broker-token"}
    assert first.admin.text not in repr(first)


@pytest.mark.parametrize("text", [b"", b"short\n", b"two words " * 5, b"\xff" * 50])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "admin-token").write_bytes(text)
    with pytest.raises(SettingsUnacceptable, match="admin-token: holds no token"):
        open_directory(tmp_path)
    assert (tmp_path / "admin-token").read_bytes() == text


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsUnacceptable, match=r"Not a directory|File exists"):
        open_directory(tmp_path / "file")


def test_a_token_is_the_whole_token() -> None:
    token = Token("t" * 43)
    assert token.is_in("Bearer " + "t" * 43)
    assert token.is_in("bearer " + "t" * 43)
    for given in (
        None,
        "",
        "Bearer",
        "Bearer " + "t" * 42,
        "Bearer " + "t" * 44,
        "t" * 43,
        "Basic " + "t" * 43,
        "Bearer é",
    ):
        assert not token.is_in(given)


def test_the_certificate_is_for_the_names_and_chains_to_the_ca(tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path, ["rvps.example", "10.0.0.1"], AT)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
    context.load_cert_chain(certificate, key)
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    ca = x509.load_pem_x509_certificate((tmp_path / "tls/ca.pem").read_bytes())
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "rvps.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.1"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    again = tls_files(tmp_path, ["other.example"], AT)
    assert again[0].read_bytes() == certificate.read_bytes(), "nothing that exists is overwritten"


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsUnacceptable, match="neither an address nor a host name"):
        tls_files(tmp_path, ["jürgen.example"], AT)
