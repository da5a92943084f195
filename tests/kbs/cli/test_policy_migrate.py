"""`kbs policy migrate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbs.cli.policy_files import rewrite
from tests.kbs.cli.conftest import invoke

OLD = "package policy\n\ndefault allow = false\n\nallow {\n\tinput.x == data.reference.x\n}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "old.rego"
    path.write_text(OLD)
    return path


@pytest.mark.opa
def test_it_shows_and_writes_only_when_told(file: Path, opa: Path) -> None:
    shown = invoke(None, "policy", "migrate", file, "--opa", opa)
    assert shown.exit_code == 0
    assert "-default allow = false" in shown.stdout
    assert "+allow if" in shown.stdout
    assert f"kbs policy migrate {file} --write" in shown.stdout.replace("\n", " ")
    assert "--reference-values rewrites it" in shown.stderr.replace("\n", " ")
    assert file.read_text() == OLD
    written = invoke(None, "policy", "migrate", file, "--write", "--reference-values", "--opa", opa)
    assert f"kbs policy check {file}" in written.stdout.replace("\n", " ")
    assert 'input.x == registered("x")' in file.read_text()
    assert "nothing to rewrite" in invoke(None, "policy", "migrate", file, "--opa", opa).stdout.replace("\n", " ")


@pytest.mark.opa
def test_json(file: Path, opa: Path) -> None:
    found = json.loads(invoke(None, "policy", "migrate", file, "--json", "--opa", opa).stdout)
    assert (found["changed"], found["written"]) == (True, False)
    assert [edit["name"] for edit in found["edits"]] == ["rego-v1"]
    assert len(found["left"]) == 1


@pytest.mark.opa
@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"package policy\nallow {", b"{}"], ids=["empty", "latin", "open", "json"]
)
def test_what_is_no_policy_is_left_alone(file: Path, opa: Path, text: bytes) -> None:
    file.write_bytes(text)
    result = invoke(None, "policy", "migrate", file, "--write", "--opa", opa)
    assert result.exit_code == 1
    assert result.stderr
    assert file.read_bytes() == text


def test_no_such_file(tmp_path: Path) -> None:
    result = invoke(None, "policy", "migrate", tmp_path / "none.rego")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("program", ["false", "true"])
@pytest.mark.parametrize("tool", [("migrate", "--write"), ("fmt",)], ids=["migrate", "fmt"])
def test_another_program_for_opa_leaves_the_file_as_it_is(file: Path, tool: tuple[str, ...], program: str) -> None:
    result = invoke(None, "policy", tool[0], file, *tool[1:], "--opa", f"/bin/{program}")
    assert file.read_text() == OLD
    if program == "false":
        assert (result.exit_code, "kbs opa install" in result.stderr.replace("\n", " ")) == (1, True)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real.rego", tmp_path / "link.rego"
    real.write_text(OLD)
    real.chmod(0o640)
    link.symlink_to(real)
    rewrite(link, "new\n")
    assert (link.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (True, "new\n", 0o640)
    with pytest.raises(UnicodeEncodeError):
        rewrite(real, "half\ud800")
    monkeypatch.setattr("shutil.copymode", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        rewrite(real, "other")
    assert real.read_text() == "new\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.rego", "real.rego"]
