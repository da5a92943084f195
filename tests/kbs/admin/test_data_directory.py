"""Keys that replicas share, made once and then only read."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kbs.admin.data_directory import make_keys
from kbs.app import build
from kbs.config import load
from kbs.errors import ConfigInvalid

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
FILES = ("admin.pem", "audit.pem", "sealing.key", "session.key", "token.pem")


def keys_in(folder: Path) -> Path:
    make_keys(folder, token_lifetime=timedelta(hours=1), now=NOW)
    return folder


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    folder = keys_in(tmp_path / "keys")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == sorted((*FILES, "admin-token"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with pytest.raises(ConfigInvalid, match="is not empty"):
        keys_in(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def mounted(tmp_path: Path) -> dict[str, str]:
    """Keys and settings as Kubernetes mounts them: links to links to read-only files; the variables that name them."""
    secret = keys_in(tmp_path / "secret" / "..data-1")
    (secret.parent / "..data").symlink_to(secret.name)
    for name in FILES:
        (secret.parent / name).symlink_to(Path("..data") / name)
        os.chmod(secret / name, 0o440)
    config = tmp_path / "config" / "..data-1"
    config.mkdir(parents=True)
    (config / "kbs.toml").write_text('[attestation]\ntees = ["snp"]\n')
    (config.parent / "kbs.toml").symlink_to(Path("..data-1") / "kbs.toml")
    named = dict(zip(("admin", "audit", "sealing", "session", "token"), FILES, strict=True))
    return {
        "KBS_CONFIG": str(tmp_path / "config" / "kbs.toml"),
        "KBS__ENDORSEMENTS__NETWORK": "false",
        **{f"KBS__KEYS__{key.upper()}": str(secret.parent / name) for key, name in named.items()},
    }


def test_a_broker_starts_from_read_only_mounts_and_an_empty_directory(tmp_path: Path) -> None:
    environment = mounted(tmp_path)

    def changes() -> dict[Path, tuple[int, int, int]]:
        found = {path: path.stat() for path in (tmp_path / "secret").rglob("*")}
        return {path: (about.st_mode, about.st_mtime_ns, about.st_ctime_ns) for path, about in found.items()}

    kept = changes()
    data = tmp_path / "data"
    data.mkdir()
    build(data, load(data, environment), clock=lambda: NOW).close()
    assert changes() == kept
    assert not (data / "keys").exists()


@pytest.mark.parametrize("missing", ["audit.pem", "sealing.key", "token.pem"])
def test_a_broker_makes_no_keys(tmp_path: Path, missing: str) -> None:
    environment = mounted(tmp_path)
    (tmp_path / "secret" / missing).unlink()
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(ConfigInvalid, match=missing.replace(".", r"\.")):
        build(data, load(data, environment), clock=lambda: NOW)
    assert list(data.iterdir()) == []


def test_a_settings_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "kbs.toml").write_text("")
    with pytest.raises(ConfigInvalid, match=r"gone\.toml does not exist$"):
        load(tmp_path, {"KBS_CONFIG": str(tmp_path / "gone.toml")})
    with pytest.raises(ConfigInvalid, match="Is a directory"):
        load(tmp_path, {}, file=tmp_path)
