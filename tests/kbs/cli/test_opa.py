"""`kbs opa install`: where it puts the program, and what it says. Nothing is built here."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from kbs.cli import opa
from kbs.errors import ConfigInvalid
from kbs.policy.install import Progress
from tests.kbs.cli.conftest import bad_json, good_json, invoke


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where to `opa` was asked to be put."""
    targets: list[Path] = []

    def install(target: Path, progress: Progress, environment: Mapping[str, str]) -> Path:
        assert "PATH" in environment
        progress("building")
        targets.append(target)
        return target / "opa"

    monkeypatch.setattr(opa, "install", install)
    return targets


def test_default_and_given_directory(asked: list[Path], tmp_path: Path) -> None:
    result = invoke(None, "opa", "install")
    assert result.exit_code == 0
    assert result.stdout.startswith("building\n")
    assert "[policy] opa" in result.stdout
    found = good_json(invoke(None, "opa", "install", "--dir", tmp_path, "--json"))
    assert found["opa"] == str(tmp_path / "opa")
    assert asked == [Path(sysconfig.get_path("scripts")), tmp_path]


def test_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def install(*_: object) -> Path:
        raise ConfigInvalid("building OPA failed: no network")

    monkeypatch.setattr(opa, "install", install)
    result = invoke(None, "opa", "install", "--dir", tmp_path)
    assert (result.exit_code, "no network" in result.stderr) == (1, True)
    assert "no network" in bad_json(invoke(None, "opa", "install", "--json"))["error"]
