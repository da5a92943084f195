"""A file of publishers that changes under a running service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rvps.errors import ProviderUnavailable, SettingsUnacceptable
from rvps.publishers.watch import PublishersOnDisk


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


def test_a_file_of_the_same_size_in_the_same_place_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "publishers.toml"
    write(path, "acme")
    publishers = PublishersOnDisk(path, required=True)
    first = path.stat()
    path.write_text(path.read_text().replace("acme/", "evil/"))
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
    assert (path.stat().st_ino, path.stat().st_size) == (first.st_ino, first.st_size)
    assert next(iter(publishers())).namespaces == ("evil/",)


def test_a_link_that_turns_elsewhere_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes changes a mounted ConfigMap."""
    path = tmp_path / "publishers.toml"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "publishers.toml", name)
        (tmp_path / f"{name}.pem").write_bytes((tmp_path / name / f"{name}.pem").read_bytes())
    path.symlink_to("one/publishers.toml")
    publishers = PublishersOnDisk(path, required=False)
    assert [each.name for each in publishers()] == ["one"]
    (tmp_path / "next").symlink_to("two/publishers.toml")
    (tmp_path / "next").replace(path)
    assert [each.name for each in publishers()] == ["two"]
    path.unlink()
    assert list(publishers()) == []


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "endless", "for everybody"])
def test_what_is_no_file_of_the_operators_is_refused_and_nobody_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "publishers.toml"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "endless":
            path.symlink_to("/dev/zero")
        case _:
            write(path, "acme")
            path.chmod(0o666)
    with pytest.raises(SettingsUnacceptable, match=r"not a file|writable by everybody"):
        PublishersOnDisk(path, required=True)


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
