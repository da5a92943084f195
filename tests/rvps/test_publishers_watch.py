"""A file of publishers that changes under a running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rvps.errors import ProviderUnavailable, SettingsUnacceptable
from rvps.publishers_watch import PublishersOnDisk


def write(path: Path, *names: str) -> None:
    text = ""
    for name in names:
        key = Ed25519PrivateKey.generate().public_key()
        (path.parent / f"{name}.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        text += f'[publishers.{name}]\ntypes = ["dsse"]\nnamespaces = ["{name}/"]\nkeys = ["{name}.pem"]\n'
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


def test_the_same_object_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "publishers.toml"
    write(path, "acme")
    publishers = PublishersOnDisk(path, required=True)
    first = publishers()
    assert [each.name for each in first] == ["acme"]
    assert publishers() is first
    write(path, "acme", "other")
    assert [each.name for each in publishers()] == ["acme", "other"]


def test_a_file_that_became_unusable_stops_what_is_signed_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "publishers.toml"
    write(path, "acme")
    publishers = PublishersOnDisk(path, required=True)
    path.write_text("[publishers.acme]\nnonsense = 1\n")
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            publishers()
    path.unlink()
    with pytest.raises(ProviderUnavailable):
        publishers()
    write(path, "acme")
    assert len(publishers()) == 1


def test_a_missing_file_means_nobody_where_it_is_optional(tmp_path: Path) -> None:
    path = tmp_path / "publishers.toml"
    publishers = PublishersOnDisk(path, required=False)
    assert len(publishers()) == 0
    write(path, "acme")
    assert len(publishers()) == 1
    path.unlink()
    assert len(publishers()) == 0
    with pytest.raises(SettingsUnacceptable, match="no such file"):
        PublishersOnDisk(path, required=True)
