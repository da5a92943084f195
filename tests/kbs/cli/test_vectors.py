"""`kbs vectors`: what it prints and when it fails."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kbs.cli.vectors import vectors_command

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command, with the entry points of pyproject.toml in place of an installed package."""
    groups = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "installed" / "kbs-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kbs\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    )
    monkeypatch.syspath_prepend(info.parent)

    def invoke(*arguments: Any) -> Result:
        result = CliRunner().invoke(vectors_command, [str(each) for each in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


@pytest.fixture
def case(vectors: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vectors / "sample" / "synthetic" / "sample_ok.json").read_text())
    return found


@pytest.mark.parametrize(("folder", "count"), [("sample", 7), ("snp", 26)])
def test_published_cases(run: Run, vectors: Path, folder: str, count: int) -> None:
    result = run(vectors / folder / "synthetic", "--tee", folder)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == count + 1
    assert all(line.startswith(f"ok     {folder}/") for line in lines[:-1])
    assert lines[-1] == f"{count} cases, 0 wrong"


def test_a_wrong_case_fails_and_says_why(run: Run, case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps({**case, "case": "good"}))
    (folder / "bad.json").write_text(json.dumps({**case, "case": "bad", "report_data": "00"}))
    (folder / "unknown.json").write_text(json.dumps({**case, "case": "unknown", "tee": "nvidia-dpu"}))
    result = run(folder)
    assert result.exit_code == 1
    bad, good, unknown, summary = result.output.splitlines()
    assert bad.startswith("WRONG  cases/bad: refused, binding_mismatch")
    assert bad.endswith("[expected to be accepted]")
    assert good.startswith("ok     cases/good: accepted")
    assert "no verifier for it: kbs.verifiers: 'nvidia-dpu' has 0 providers" in unknown
    assert summary == "3 cases, 2 wrong"


def test_a_case_goes_by_its_own_tee(run: Run, case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps({**case, "case": "one"}))
    result = run(folder, "--tee", "tdx")
    assert result.output.splitlines() == ["ok     tdx/one: accepted, cpu0 affirming", "1 cases, 0 wrong"]


def test_a_hostile_case_does_not_steer_the_terminal(run: Run, case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    hostile = {**case, "case": "x", "expect": {**case["expect"], "claims": {"\x1b[2J[red]": "\x1b[2J"}}}
    (folder / "x.json").write_text(json.dumps(hostile))
    (folder / "y\x1b[2J.json").write_text(json.dumps({**case, "case": "z\x1b[2J"}))
    os.symlink("x.json", os.fsencode(folder) + b"/\xff.json")
    result = run(folder)
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert result.output.endswith("3 cases, 3 wrong\n")


def test_what_cannot_be_read_is_wrong_and_the_rest_still_runs(run: Run, case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "folder.json").mkdir()
    (folder / "gone.json").symlink_to("nowhere")
    (folder / "loop.json").symlink_to("loop.json")
    os.mkfifo(folder / "pipe.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "good.json").write_text(json.dumps({**case, "case": "good"}))
    (folder / "time.json").write_text(json.dumps({**case, "case": "time", "now": "0001-01-01T00:00:00+23:59"}))
    result = run(folder)
    assert result.exit_code == 1
    assert [line.split("/")[1].split(":")[0] for line in result.output.splitlines() if line.startswith("ok ")] == [
        "good"
    ]
    assert result.output.count("not a case file") == 6
    assert result.output.endswith("7 cases, 6 wrong\n")


def test_a_folder_without_cases_is_wrong_use(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "README.md").write_text("nothing")
    assert run(folder).exit_code == 2
    assert run(tmp_path / "absent").exit_code == 2
    assert run().exit_code == 2
