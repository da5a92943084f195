"""Signing keys: files, key ids, chains, rotation, the published set."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwcrypto import jwk

from kbs.errors import ConfigInvalid
from kbs.tokens import keys

FIXTURE_KID = "Sxz5mEKAKGy0sXcyU7KyF3WIO2dHHcfUwHThwSBU6lc"


def _pem(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "key.pem"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_pkcs8_and_sec1_load(tmp_path: Path, form: PrivateFormat) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    loaded = keys.load_token_key(_file(tmp_path, _pem(private, form)))
    assert loaded.public == private.public_key()
    assert loaded.alg == "ES256"
    assert loaded.kid == jwk.JWK.from_pyca(private.public_key()).thumbprint()
    assert "private" not in repr(loaded)


def test_generated_keys_are_private_files_and_are_never_overwritten(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        made = keys.generate_token_key(tmp_path / "token.pem")
        admin = keys.generate_admin_key(tmp_path / "admin.pem")
    finally:
        os.umask(previous)
    assert [stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.iterdir())] == [0o600, 0o600]
    assert keys.load_token_key(tmp_path / "token.pem").kid == made.kid
    assert keys.load_signing_key(tmp_path / "admin.pem").kid == admin.kid
    assert admin.alg == "EdDSA"
    assert admin.kid == jwk.JWK.from_pyca(admin.public).thumbprint()
    before = (tmp_path / "token.pem").read_bytes()
    with pytest.raises(FileExistsError):
        keys.generate_token_key(tmp_path / "token.pem")
    assert (tmp_path / "token.pem").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["admin.pem", "token.pem"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(ec.generate_private_key(ec.SECP384R1())),
        _pem(rsa.generate_private_key(65537, 2048)),
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"x" * (64 << 10) + b"x",
    ],
)  # fmt: skip
def test_other_key_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigInvalid):
        keys.load_token_key(_file(tmp_path, content))


def test_token_keys_are_not_ed25519(tmp_path: Path) -> None:
    keys.generate_admin_key(tmp_path / "admin.pem")
    with pytest.raises(ConfigInvalid, match="P-256"):
        keys.load_token_key(tmp_path / "admin.pem")
    with pytest.raises(ConfigInvalid):
        keys.load_token_key(tmp_path / "missing.pem")


def test_published_set_is_the_reference_s_with_our_kid(vectors: Path) -> None:
    """Vector `expected-jwks.json`; the one listed difference is `kid`."""
    folder = vectors / "tokens"
    key = keys.load_token_key(folder / "signing-key.pem", folder / "cert-chain.pem")
    (ours,) = keys.KeyRing(key).jwks()["keys"]
    assert ours.pop("kid") == key.kid == FIXTURE_KID
    assert {"keys": [ours]} == json.loads((folder / "expected-jwks.json").read_text())


def test_chain_must_be_for_the_key(tmp_path: Path, vectors: Path) -> None:
    chain = vectors / "tokens/cert-chain.pem"
    keys.generate_token_key(tmp_path / "token.pem")
    with pytest.raises(ConfigInvalid, match="another key"):
        keys.load_token_key(tmp_path / "token.pem", chain)
    fixture = vectors / "tokens/signing-key.pem"
    with pytest.raises(ConfigInvalid, match="no PEM certificates"):
        keys.load_token_key(fixture, fixture)
    long = tmp_path / "long.pem"
    long.write_bytes(chain.read_bytes() * 6)
    with pytest.raises(ConfigInvalid, match="more than 5"):
        keys.load_token_key(fixture, long)


def test_every_key_that_verifies_is_published_the_signing_one_first() -> None:
    new, old = (keys.signing_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    ring = keys.KeyRing(new, (keys.VerifyingKey(old.public, old.kid),))
    published = ring.jwks()["keys"]
    assert [key["kid"] for key in published] == [new.kid, old.kid]
    assert not [key for key in published if "d" in key]
    with pytest.raises(ConfigInvalid, match="twice"):
        keys.KeyRing(new, (keys.VerifyingKey(new.public, new.kid),))


def test_keys_that_only_verify_load_from_either_half(tmp_path: Path) -> None:
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    halves = (
        _pem(first),
        first.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + _pem(first),
        first.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).replace(b"\n", b"\r\n"),
    )
    for half in halves:
        (one,) = keys.load_verifying_keys(_file(tmp_path, half))
        assert one.kid == keys.signing_key(first).kid
        kids = [key.kid for key in keys.load_verifying_keys(_file(tmp_path, half + b"\n" + _pem(second)))]
        assert kids == [one.kid, keys.signing_key(second).kid]
        assert not hasattr(one, "private")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"PUBLIC KEY",
        _pem(ec.generate_private_key(ec.SECP256R1())) + b"and more",
        _pem(ec.generate_private_key(ec.SECP256R1()))[:-20],
        _pem(ec.generate_private_key(ec.SECP256R1())) + _pem(ed25519.Ed25519PrivateKey.generate()),
        _pem(ec.generate_private_key(ec.SECP384R1())),
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        b"x" * (64 << 10) + b"x",
    ],
    ids=[
        "empty", "blank", "words", "more", "cut", "ed25519", "p384", "no-public", "no-private", "parameters", "rsa",
        "encrypted", "large",
    ],
)  # fmt: skip
def test_other_files_of_keys_that_only_verify_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigInvalid):
        keys.load_verifying_keys(_file(tmp_path, content))


def test_both_kinds_of_key_have_a_jwk() -> None:
    for private in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
        ours = keys.signing_key(private).jwk()
        theirs = jwk.JWK.from_pyca(private.public_key()).export_public(as_dict=True)
        assert {name: value for name, value in ours.items() if name != "alg"} == {
            name: value for name, value in theirs.items() if name != "kid"
        }
