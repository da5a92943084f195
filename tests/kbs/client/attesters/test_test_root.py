"""Keys of a make-believe vendor are the same ones every time, and only their owner reads them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.client.attesters.test_root import TestRoot

P256 = ec.SECP256R1()


def _numbers(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> object:
    return key.public_key().public_numbers()


def test_a_folder_gives_the_same_keys_to_a_second_process(tmp_path: Path) -> None:
    first, second = TestRoot(tmp_path / "root"), TestRoot(tmp_path / "root")
    assert _numbers(first.ec("ca", P256)) == _numbers(second.ec("ca", P256))
    assert _numbers(first.rsa("ark")) == _numbers(second.rsa("ark"))
    assert first.document("ca.der", lambda: b"one") == second.document("ca.der", lambda: b"two") == b"one"


def test_only_the_owner_reads_the_folder(tmp_path: Path) -> None:
    TestRoot(tmp_path / "root").ec("ca", P256)
    (file,) = (tmp_path / "root").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700


def test_in_memory_a_label_is_a_vendor() -> None:
    assert TestRoot().rsa("ark") is TestRoot().rsa("ark")
    assert TestRoot().rsa("ark") is not TestRoot(label="other").rsa("ark")
    root = TestRoot()
    assert root.ec("vcek", P256) is root.ec("vcek", P256)
    assert _numbers(root.ec("vcek", P256)) != _numbers(TestRoot().ec("vcek", P256))


def test_another_kind_of_key_under_a_name_is_an_error(tmp_path: Path) -> None:
    root = TestRoot(tmp_path)
    root.ec("ca", P256)
    with pytest.raises(ValueError, match="another curve"):
        root.ec("ca", ec.SECP384R1())
    with pytest.raises(ValueError, match="not an RSA key"):
        root.rsa("ca")
    root.rsa("ark")
    with pytest.raises(ValueError, match="not an elliptic-curve key"):
        TestRoot(tmp_path).ec("ark", P256)


@pytest.mark.parametrize("name", ["", "../ca", "a/b", "CA", ".hidden", "a" * 65])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="names are"):
        TestRoot(tmp_path).document(name, lambda: b"")
    assert list(tmp_path.iterdir()) == []
