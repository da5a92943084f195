"""`--build`: what `rvps compute kata` wrote, and nothing else, becomes kernel, initrd and command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rvps.cli import main
from tests.rvps.compute.images import kernel, sev_firmware, tdx_firmware

SNP = ("snp", "--ovmf", "OVMF.amdsev.fd", "--vcpu-type", "EPYC-Milan", "--json")
TDX = ("tdx", "--firmware", "OVMF.fd", "--json")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["compute", *words])


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with firmware, and below it a build with its files."""
    monkeypatch.chdir(tmp_path)
    Path("OVMF.fd").write_bytes(tdx_firmware())
    Path("OVMF.amdsev.fd").write_bytes(sev_firmware())
    below = tmp_path / "out"
    below.mkdir()
    files = {"kernel": ("vmlinuz", kernel()), "initrd": ("initrd", b"first files")}
    document: dict[str, Any] = {"kind": "kata", "command_line": "quiet nr_cpus=2", "vcpus": 2, "files": {}}
    for what, (name, raw) in files.items():
        (below / name).write_bytes(raw)
        document["files"][what] = {"name": name, "sha256": hashlib.sha256(raw).hexdigest()}
    (below / "build.json").write_text(json.dumps(document))
    return below / "build.json"


def values(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["values"]


@pytest.mark.parametrize(
    ("words", "line", "more"),
    [(SNP, "--append", ("--vcpus", "2")), (TDX, "--cmdline", ("--memory", "2G"))],
    ids=["snp", "tdx"],
)
def test_a_build_is_what_its_files_and_line_are(words: tuple[str, ...], line: str, more: tuple[str, ...]) -> None:
    files = ("--kernel", "out/vmlinuz", "--initrd", "out/initrd")
    assert values(run(*words, "--build", "out/build.json", *more)) == values(
        run(*words, *files, line, "quiet nr_cpus=2", *more)
    )


def test_vcpus_are_those_of_the_build_unless_said(build: Path) -> None:
    assert len(values(run(*SNP, "--build", str(build)))["snp_launch_measurement"]) == 1
    assert len(values(run(*SNP, "--build", str(build), "--vcpus", "1-3"))["snp_launch_measurement"]) == 3
    assert "give --vcpus" in run(*SNP, "--kernel", "out/vmlinuz").stderr


def test_files_may_lie_elsewhere() -> None:
    Path("out/vmlinuz").rename("kernel")
    assert run(*SNP, "--build", "out/build.json").exit_code == 1
    assert values(run(*SNP, "--build", "out/build.json", "--kernel", "kernel"))


Change = Callable[[dict[str, Any]], object]
WRONG: list[tuple[str, Change, str]] = [
    ("another kind", lambda d: d.update(kind="other"), "not what"),
    ("no line", lambda d: d.pop("command_line"), "missing"),
    ("a number for a line", lambda d: d.update(command_line=1), "missing"),
    ("no vCPUs", lambda d: d.update(vcpus=0), "missing"),
    ("true vCPUs", lambda d: d.update(vcpus=True), "missing"),
    ("no files", lambda d: d.update(files=[]), "missing"),
    ("no kernel", lambda d: d["files"].pop("kernel"), "sha256 are missing"),
    ("another kernel", lambda d: d["files"]["kernel"].update(sha256="00" * 32), "not the kernel"),
    ("another initrd", lambda d: d["files"]["initrd"].update(sha256="00" * 32), "not the initrd"),
    ("a path", lambda d: d["files"]["kernel"].update(name="../vmlinuz"), "is a path"),
    ("an empty name", lambda d: d["files"]["kernel"].update(name=""), "is a path"),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_other_documents_are_refused(build: Path, change: Change, said: str) -> None:
    document = json.loads(build.read_text())
    change(document)
    build.write_text(json.dumps(document))
    found = run(*SNP, "--build", str(build))
    assert (found.exit_code, found.stdout) == (1, "")
    assert said in found.stderr
    assert "\nNext: " in found.stderr


def test_the_line_stands_in_the_build_alone(build: Path) -> None:
    for words, line in ((SNP, "--append"), (TDX, "--cmdline")):
        found = run(*words, "--build", str(build), line, "quiet")
        assert (found.exit_code, "leave it out" in found.stderr) == (2, True)
    build.write_text("{")
    assert run(*TDX, "--build", str(build)).exit_code == 1
