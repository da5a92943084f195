"""`kbs k8s migrate`, as people type it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from kbs.cli import k8s_migrate
from kbs.k8s.api import ApiKind, ApiNotFound, Listed, Object
from tests.fakes import trustee_installation as trustee
from tests.kbs.cli.conftest import invoke

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "k8s"
CONFIGS = ROOT / "tests/vectors/trustee-configs"
SAMPLE = CONFIGS / "coco-as-grpc-2.toml"


def migrate(*arguments: Any) -> Result:
    return invoke(None, "k8s", "migrate", "--manifests", MANIFESTS, *arguments)


def words(result: Result) -> str:
    """What was printed, without the ends of lines that a narrow terminal makes."""
    return " ".join(result.output.split())


def without_policies(**changes: Any) -> list[trustee.Object]:
    """An installation that can be read without `opa`."""
    return trustee.by_operator(kbsResourcePolicyConfigMapName=None, **changes)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """`kubectl get -o yaml`."""
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": without_policies()}))
    return file


def test_files_and_a_report_are_written(dump: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep/new"
    done = migrate("--from", dump, "--out", out)
    assert done.exit_code == 0
    for expected in ("written", "BrokerResource database", "kbs k8s keys --namespace", "next"):
        assert expected in words(done)
    names = {str(each.relative_to(out)) for each in out.rglob("*") if each.is_file()}
    assert names == {
        "kbs.toml",
        "kustomization.yaml",
        "report.md",
        "switch.yaml",
        "objects/broker.yaml",
        "objects/kustomization.yaml",
        "objects/reference-values.yaml",
        "objects/resources.yaml",
    }
    (overlay,) = yaml.safe_load((out / "kustomization.yaml").read_text())["resources"]
    assert (out / overlay).resolve() == MANIFESTS / "overlays/prod"
    assert not [each for each in out.parent.iterdir() if each != out]
    assert "| KbsConfig/kbsconfig | kbsServiceType |" in (out / "report.md").read_text()


def test_json_is_the_report(dump: Path, tmp_path: Path) -> None:
    done = migrate("--from", dump, "--out", tmp_path / "new", "--json")
    found = json.loads(done.output)
    assert found["namespace"] == trustee.NAMESPACE
    assert found["written"] == str(tmp_path / "new")
    assert found["counts"]["unknown"] == 0
    assert {"source", "setting", "verdict", "ours", "why"} == set(found["entries"][0])


def test_without_a_folder_only_the_report_is_shown(dump: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = migrate("--from", dump)
    assert done.exit_code == 0
    assert "BrokerResource" in done.output
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_files_and_tees(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "kbs-config.toml").write_bytes(SAMPLE.read_bytes())
    (folder / "notes.txt").write_text("nothing")
    (folder / "as-config.json").write_text('{"attestation_token_broker": {"duration_min": 9}}')
    done = migrate(
        "--from", folder, "--tee", "snp", "--tee", "az-snp-vtpm", "--namespace", "keys", "--out", tmp_path / "n"
    )
    assert done.exit_code == 0
    found = tomllib.loads((tmp_path / "n/kbs.toml").read_text())
    assert found["attestation"]["tees"] == ["snp", "az-snp-vtpm"]
    assert found["token"]["lifetime_seconds"] == 540
    assert "keys" in (tmp_path / "n/kustomization.yaml").read_text()


def test_public_files_are_taken_from_below_a_folder_and_no_further(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "opt/confidential-containers/trustee").mkdir(parents=True)
    (root / "opt/confidential-containers/trustee/admin1-pubkey.pem").write_bytes(trustee.public_key())
    (tmp_path / "outside.pem").write_bytes(trustee.public_key())
    (root / "opt/confidential-containers/trustee/admin2-pubkey.pem").symlink_to(tmp_path / "outside.pem")
    assert migrate("--from", SAMPLE, "--root", root, "--out", tmp_path / "new").exit_code == 0
    providers = tomllib.loads((tmp_path / "new/kbs.toml").read_text())["admin"]["identity_providers"]
    assert [each["issuer"] for each in providers] == ["admin1-issuer"]
    assert [each.name for each in (tmp_path / "new/files").iterdir()] == ["admin1-pubkey.pem"]


def test_what_nobody_knows_keeps_it_from_being_written(tmp_path: Path) -> None:
    file = tmp_path / "kbs.toml"
    file.write_text("[http_server]\nsurprise = 1\n")
    done = migrate("--from", file, "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert "http_server.surprise" in words(done)
    assert "nothing was written" in words(done)
    assert not (tmp_path / "new").exists()
    as_json = migrate("--from", file, "--out", tmp_path / "new", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.output)["written"] is None
    assert migrate("--from", file, "--out", tmp_path / "new", "--leave-unknown").exit_code == 0
    assert "surprise" in (tmp_path / "new/report.md").read_text()


def wrong_uses(tmp_path: Path) -> dict[str, tuple[Sequence[Any], str]]:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.txt").write_text("x")
    (tmp_path / "broken.toml").write_text("[http_server")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "other.toml").write_text("a = 1")
    (tmp_path / "kubeconfig").write_text("{}")
    return {
        "nothing": ((), "give --from FILE, or --from-namespace NAMESPACE"),
        "both": (("--from", SAMPLE, "--from-namespace", "a"), "one of them"),
        "no file": (("--from", tmp_path / "absent"), "does not exist"),
        "no files in it": (("--from", tmp_path / "empty"), "holds no .toml"),
        "extension": (("--from", tmp_path / "odd.txt"), "is none of .toml"),
        "no TOML": (("--from", tmp_path / "broken.toml"), "is not TOML"),
        "no YAML": (("--from", tmp_path / "broken.yaml"), "malformed"),
        "no settings": (("--from", tmp_path / "other.toml"), "is no settings file"),
        "folder in use": (("--from", SAMPLE, "--out", tmp_path / "full"), "is not an empty folder"),
        "no manifests": (("--from", SAMPLE, "--out", tmp_path / "n", "--manifests", tmp_path), "is not the folder k8s"),
        "no TEE": (("--from", SAMPLE, "--tee", "sample"), "is not one of"),
        "namespace": (("--from", SAMPLE, "--namespace", "No_Name"), "is no name of a namespace"),
        "kubeconfig alone": (("--from", SAMPLE, "--context", "x"), "belong to --from-namespace"),
        "no kubeconfig": (
            ("--from-namespace", "a", "--kubeconfig", tmp_path / "kubeconfig"),
            "no way to an API server",
        ),
        "kubeconfig no YAML": (("--from-namespace", "a", "--kubeconfig", tmp_path / "broken.yaml"), "no way to an API"),
        "two of them": (("--from", SAMPLE, "--from", CONFIGS / "coco-as-grpc-3.toml"), "several settings files"),
    }


def test_wrong_uses_say_what_is_wrong_and_write_nothing(tmp_path: Path) -> None:
    uses = wrong_uses(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for name, (arguments, says) in uses.items():
        done = migrate(*arguments)
        assert done.exit_code in (1, 2), name
        assert says in words(done), (name, words(done))
    assert sorted(tmp_path.rglob("*")) == before


class Cluster:
    """An API server with one installation and without the higher-level kind."""

    def list(self, kind: ApiKind, namespace: str | None, *, metadata_only: bool = False) -> Listed:
        assert (namespace, metadata_only) == (trustee.NAMESPACE, False)
        if kind.plural == "trusteeconfigs":
            raise ApiNotFound("list trusteeconfigs: not found")
        found: list[Object] = []
        for each in without_policies():
            if f"{each['kind'].lower()}s" == kind.plural:
                found.append({name: value for name, value in each.items() if name not in ("kind", "apiVersion")})
        return Listed(tuple(found), "1")


def test_a_cluster_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(k8s_migrate, "connect", lambda *_, **__: Cluster())
    (tmp_path / "config").write_text("{}")
    asked = ("--from-namespace", trustee.NAMESPACE, "--kubeconfig", tmp_path / "config")
    found = json.loads(migrate(*asked, "--json").output)
    assert {"kind": "BrokerResource", "name": "database"} in found["objects"]
