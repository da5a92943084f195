"""`kbs resource generate`, `rotate`, `escrow` and `open-escrow`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kbs.client.tee_keys import TeeKeyPair
from kbs.protocol import jwe
from tests.kbs.cli.conftest import Run, bad_json, good_json, invoke

SECRET = b"CANARY-of-the-volume"


def test_made_once_then_rotated(run: Run) -> None:
    made = run("resource", "generate", "luks/vm/root", "--bytes", 64, "--encoding", "hex", "--json")
    assert good_json(made) == {"path": "luks/vm/root", "version": 1}
    again = bad_json(run("resource", "generate", "luks/vm/root", "--bytes", 64, "--json"))
    assert again["reason"] == "version_conflict"
    assert "version 2" in run("resource", "rotate", "luks/vm/root").stdout
    (shown,) = good_json(run("resource", "list", "--json"))
    assert (shown["version"], shown["size"], shown["generated"]) == (2, "128", "64 hex")


def test_wrong_use(run: Run, tmp_path: Path) -> None:
    assert run("resource", "generate", "luks/vm/root", "--bytes", 3).exit_code == 2
    assert run("resource", "generate", "luks/vm/root", "--encoding", "hex").exit_code == 2
    assert run("resource", "generate", "luks/vm/root").exit_code == 1
    assert run("resource", "generate", "luks/vm", "--bytes", 32).exit_code == 1
    assert run("resource", "rotate", "luks/vm/root").exit_code == 1
    run("resource", "generate", "luks/vm/root", "--bytes", 32)
    without = run("resource", "escrow", "luks/vm/root", "--out", tmp_path / "copy")
    assert without.exit_code == 1
    assert "no sealed copy" in without.stderr
    assert not (tmp_path / "copy").exists()


def test_a_copy_opens_with_its_key_only(tmp_path: Path) -> None:
    pair, other = TeeKeyPair.generate(), TeeKeyPair.generate()
    (tmp_path / "copy").write_bytes(jwe.seal(pair.public, SECRET))
    for name, key in {"key": pair.private_key, "other": other.private_key}.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / name).write_bytes(pem)
    command = ("resource", "open-escrow", tmp_path / "copy", "--key")
    opened = invoke(None, *command, tmp_path / "key")
    assert opened.stdout_bytes == SECRET
    assert invoke(None, *command, tmp_path / "other").exit_code == 1
    out = tmp_path / "secret"
    assert invoke(None, *command, tmp_path / "key", "--out", out).exit_code == 0
    assert out.read_bytes() == SECRET
    assert out.stat().st_mode & 0o777 == 0o600
    over = invoke(None, *command, tmp_path / "key", "--out", out)
    assert "exists" in over.stderr
    assert invoke(None, *command, tmp_path / "key", "--json").exit_code == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"protected":"e30","iv":""}'])
def test_what_is_no_copy(tmp_path: Path, content: bytes) -> None:
    pair = TeeKeyPair.generate()
    (tmp_path / "copy").write_bytes(content)
    (tmp_path / "key").write_bytes(pair.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    result = invoke(None, "resource", "open-escrow", tmp_path / "copy", "--key", tmp_path / "key")
    assert (result.exit_code, result.stdout) == (1, "")


def test_what_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"{}")
    edwards = ed25519.Ed25519PrivateKey.generate()
    texts = {
        "empty": b"",
        "public": ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "edwards": edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
        result = invoke(None, "resource", "open-escrow", tmp_path / "copy", "--key", tmp_path / name)
        assert result.exit_code == 1
        assert "expected" in result.stderr
    assert invoke(None, "resource", "open-escrow", tmp_path / "copy", "--key", tmp_path / "absent").exit_code == 1
