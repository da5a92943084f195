"""docs/reference-values/ci.md: the shell of its jobs runs as it stands, and their YAML says what such a job needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from rvps.cli import main, verification
from tests.architecture.documents import ROOT, blocks, text_of
from tests.fakes.quick_commands import QuickCommands
from tests.fakes.running_provider import RunningProvider
from tests.fakes.sigstore import COMMIT, SIGNED, Sigstore
from tests.rvps.intake import test_slsa

_SECONDS = 60


def _documents() -> tuple[Any, str, Any]:
    """GitHub's workflow, the publishers who trust it, GitLab's jobs."""
    found = blocks(text_of(ROOT / "docs/reference-values/ci.md"))
    github, gitlab = (yaml.safe_load(block.text) for block in found if block.kind == "yaml")
    (publishers,) = (block.text for block in found if block.kind == "toml")
    return github, publishers, gitlab


GITHUB, PUBLISHERS, GITLAB = _documents()
STEPS = {step["name"]: step for step in GITHUB["jobs"]["reference-values"]["steps"] if "name" in step}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickCommands]:
    commands = QuickCommands(tmp_path_factory.mktemp("quick"))
    yield commands
    commands.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository as the document asks for."""
    found = tmp_path / "checkout"
    found.mkdir()
    script = f'#!/bin/sh\ncd {ROOT} && python -m tests.fakes.build_inputs "$OLDPWD/$1" 1.2.3\n'
    (found / "build.sh").write_text(f'{script}printf quiet > "$OLDPWD/$1/cmdline"\n')
    (found / "build.sh").chmod(0o755)
    (found / "rvps-ca.pem").write_bytes(next((ROOT / "kbs").rglob("*.pem")).read_bytes())
    return found


def run(script: str, checkout: Path, quick: QuickCommands, variables: Mapping[str, str]) -> str:
    """Standard output of a step, which `bash -e` ran as runners do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KBS_", "RVPS_"))}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=checkout,
        env={**kept, "PATH": f"{quick.folder}{os.pathsep}{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_workflow_asks_for_no_more_than_it_needs() -> None:
    job = GITHUB["jobs"]["reference-values"]
    assert GITHUB[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as a boolean
    assert GITHUB["permissions"] == {"contents": "read"}
    assert job["permissions"] == {"contents": "read", "id-token": "write", "attestations": "write"}
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v[1-9][0-9]*", action) for action in used)
    assert STEPS["attest"]["with"] == {"subject-path": "values.json"}
    assert STEPS["message"]["env"]["BUNDLE"] == "${{ steps.attest.outputs.bundle-path }}"
    assert STEPS["attest"]["id"] == "attest"
    # what a pull request can name never becomes part of a script
    assert not [step for step in job["steps"] if "${{" in step.get("run", "")]


def test_gitlab_knows_every_stage_and_template() -> None:
    jobs = {name: job for name, job in GITLAB.items() if name != "stages" and not name.startswith(".")}
    assert set(jobs) == {"reference-values", "expiry", "drift"}
    for job in jobs.values():
        assert job["stage"] in GITLAB["stages"]
        assert job["extends"] in GITLAB
        assert job["rules"]
        assert all(isinstance(line, str) for line in job["script"])
    assert jobs["reference-values"]["rules"] == [{"if": "$CI_COMMIT_TAG"}]
    made = re.findall(r"\b[a-z]+\.json\b", " ".join(jobs["reference-values"]["script"]))
    assert set(jobs["reference-values"]["artifacts"]["paths"]) == set(made)


@pytest.mark.server
@pytest.mark.enable_socket
def test_what_github_signs_would_be_taken(
    checkout: Path, quick: QuickCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"RVPS_URL": "http://127.0.0.1:9", "RVPS_CA_FILE": "rvps-ca.pem"}
    told = run(STEPS["build"]["run"] + "\n" + STEPS["compute"]["run"], checkout, quick, variables)
    assert "values change" in told
    values = (checkout / "values.json").read_bytes()
    sigstore = Sigstore()
    statement = json.dumps(test_slsa.provenance(values)).replace(test_slsa.COMMIT, COMMIT)
    (checkout / "bundle.json").write_text(json.dumps(sigstore.bundle(statement.encode())))
    run(STEPS["message"]["run"], checkout, quick, {**variables, "BUNDLE": "bundle.json"})

    (checkout / "publishers.toml").write_text(PUBLISHERS)
    (checkout / "trusted_root.json").write_bytes(sigstore.trusted_root())
    monkeypatch.setattr(verification, "system_clock", lambda: SIGNED)
    monkeypatch.chdir(checkout)
    found = CliRunner().invoke(main, ["verify", "message.json", "--publishers", "publishers.toml", "--json"])
    assert found.exit_code == 0, found.output
    told_values = json.loads(found.stdout)
    assert (told_values["series"], told_values["serial"], told_values["tee"]) == ("guest", 1_000_002_000_003, "snp")
    assert told_values["values"] == json.loads(values)["values"]
    assert [artifact["name"] for artifact in told_values["artifacts"]] == ["OVMF.amdsev.fd", "vmlinuz"]


@pytest.mark.server
@pytest.mark.enable_socket
def test_gitlab_publishes_and_watches(checkout: Path, quick: QuickCommands, tmp_path: Path) -> None:
    run("rvps keygen release.pem", checkout, quick, {})
    publishers = '[publishers.acme]\ntypes = ["dsse"]\nnamespaces = ["snp_"]\nkeys = ["release.pem.pub"]\n'
    (checkout / "publishers.toml").write_text(publishers)
    data = tmp_path / "rvps"
    data.mkdir()
    for name in ("publishers.toml", "release.pem.pub"):
        shutil.copy(checkout / name, data)
    provider = RunningProvider(data)
    try:
        variables = {
            "RVPS_URL": f"http://{provider.rest}",
            "RVPS_CA_FILE": "rvps-ca.pem",
            "RELEASE_KEY": "release.pem",
            "CI_PIPELINE_IID": "17",
            "RVPS_TOKEN": str(data / "admin-token"),
        }
        told = run("\n".join(GITLAB["reference-values"]["script"]), checkout, quick, variables)
        digest = json.loads((checkout / "signed.json").read_text())["statement"]
        assert told.strip() == f"active {digest}"
        assert json.loads((checkout / "published.json").read_text())["status"]["serial"] == 17
        # what GitHub's job asks first; there is nothing left to change
        watch = {**variables, "RVPS_TOKEN_FILE": variables["RVPS_TOKEN"]}
        run(STEPS["compute"]["run"].replace(' || echo "values change"', ""), checkout, quick, watch)
        assert json.loads((checkout / "difference.json").read_text())["changes"] == []
        assert "Nothing in force expires" in run("\n".join(GITLAB["expiry"]["script"]), checkout, quick, variables)
    finally:
        assert provider.stop() == 0


def test_every_command_has_its_exit_status() -> None:
    """Those that only write files, or run for ever, are like `rvps sign`."""
    text = text_of(ROOT / "docs/reference-values/ci.md")
    rows = [line for line in text.split("## Exit status")[1].split("## JSON")[0].splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`(?:rvps )?([a-z-]+)", row.split("|")[1])}
    known = set(main.commands)
    assert known - named == {"keygen", "serve", "sign-approval", "sign-revocation"}
    assert named <= known
