"""The shipped modules are what the committed texts say, and a damaged installation decides nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kbs.errors import PolicyBroken
from kbs.policy import build
from kbs.policy.engine import PolicyKind
from kbs.policy.opa_command import OpaCommand
from kbs.policy.rego_sources import policies_folder
from kbs.policy.shipped import Shipped
from tests.probe_policies import FOLDER, compiled


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(policies_folder(), tmp_path / "policies"))


def test_every_text_is_in_the_manifest_and_matches_it() -> None:
    shipped = Shipped.load()
    assert shipped.names() == build.sources(policies_folder())
    for name in shipped.names():
        assert shipped.policy(name).wasm


@pytest.mark.parametrize("file", ["evidence/cpu.rego", "wasm/evidence-cpu.wasm"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_changed_policy_is_refused(copy: Path, file: str, damage: str) -> None:
    shipped = Shipped.load(copy)
    if damage == "gone":
        (copy / file).unlink()
    else:
        (copy / file).write_bytes((copy / file).read_bytes() + b"\n")
    with pytest.raises(PolicyBroken):
        shipped.policy("evidence/cpu")
    assert shipped.policy("evidence/gpu").wasm


@pytest.mark.parametrize(
    "file", ["lib/prelude.rego", "lib/wrapper_resource.rego", "lib/findings.rego", "manifest.json"]
)
def test_a_changed_library_or_manifest_is_refused(copy: Path, file: str) -> None:
    (copy / file).write_bytes((copy / file).read_bytes() + b"x")
    with pytest.raises(PolicyBroken):
        Shipped.load(copy)


@pytest.mark.parametrize("member", ["capabilities", "library", "policies"])
def test_an_incomplete_manifest_is_refused(copy: Path, member: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest[member]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PolicyBroken):
        Shipped.load(copy)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(PolicyBroken):
        Shipped.load().policy("evidence/../evidence/cpu")


def test_without_opa_the_check_compares_digests_unless_opa_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--check", "--opa", "/nonexistent/opa"]
    assert build.main(arguments, {}) == 0
    assert "not rebuilt" in capsys.readouterr().out
    assert build.main(arguments, {"REQUIRE_OPA": "1"}) == 1


@pytest.mark.opa
def test_a_rebuild_is_identical_to_the_byte(opa: Path) -> None:
    files = build.build(policies_folder(), OpaCommand(opa))
    assert build.differences(policies_folder(), files) == []


@pytest.mark.opa
def test_the_check_names_what_differs(opa: Path, copy: Path) -> None:
    files = build.build(copy, OpaCommand(opa))
    (copy / "wasm/evidence-cpu.wasm").write_bytes(b"other")
    (copy / "wasm/evidence-gpu.wasm").unlink()
    (copy / "wasm/stale.wasm").write_bytes(b"")
    assert build.differences(copy, files) == ["wasm/evidence-cpu.wasm", "wasm/evidence-gpu.wasm", "wasm/stale.wasm"]
    build.write(copy, files)
    assert build.differences(copy, files) == []


@pytest.mark.opa
@pytest.mark.parametrize("kind", PolicyKind)
def test_the_probe_policies_are_what_their_texts_say(opa: Path, kind: PolicyKind) -> None:
    assert compiled(kind, opa) == (FOLDER / f"{kind}.wasm").read_bytes()
