"""`kbs k8s keys` and `kbs k8s lint`, as people type them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kbs.cli.k8s_keys import keys_command
from kbs.cli.k8s_lint import lint_command
from kbs.errors import MalformedMessage

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"image": "x:latest"}]}}
FINE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}


def lint(*arguments: str | Path, given: str = "") -> Result:
    return CliRunner().invoke(lint_command, [str(each) for each in arguments], input=given)


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(keys_command, arguments)


def text(*objects: object) -> str:
    return yaml.safe_dump_all(objects)


def test_fine_manifests_are_good() -> None:
    done = lint("-", given=text(FINE))
    assert (done.exit_code, done.output.strip()) == (0, "good 1 manifests")


def test_findings_say_what_to_do_and_end_with_one() -> None:
    done = lint("-", given=text(POD))
    assert done.exit_code == 1
    for expected in ("restricted-profile", "image-moves", "Pod/p", "securityContext.runAsNonRoot: true"):
        assert expected in done.output


def test_files_are_looked_at_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text(POD))
    (tmp_path / "b.json").write_text(json.dumps(FINE))
    done = lint(tmp_path / "a.yaml", tmp_path / "b.json", "--json")
    document = json.loads(done.output)
    assert done.exit_code == 1
    assert document["manifests"] == 2
    assert {"rule", "severity", "place", "text", "fix"} == set(document["findings"][0])


def test_warnings_end_with_one_only_when_asked() -> None:
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    role = {"apiVersion": "v1", "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": rules}
    binding = {"apiVersion": "v1", "kind": "ClusterRoleBinding", "roleRef": {"name": "r"}}
    given = text(role, binding)
    assert lint("-", given=given).exit_code == 0
    assert "1 warnings" in lint("-", given=given).output
    assert lint("-", "--strict", given=given).exit_code == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a: b", "-: YAML: document 1 has no apiVersion and kind"),
        ("a: [", "YAML"),
        ("a: &x 1\nb: *x", "aliases"),
    ],
)
def test_what_is_no_manifest_is_refused(given: str, says: str) -> None:
    done = lint("-", given=given)
    assert isinstance(done.exception, MalformedMessage)
    assert says in str(done.exception)


def test_nothing_and_no_file_are_refused(tmp_path: Path) -> None:
    assert lint("-", given="").exit_code == 1
    assert isinstance(lint(tmp_path / "none.yaml").exception, MalformedMessage)
    assert lint().exit_code == 2


def test_keys_come_as_yaml_or_as_a_list() -> None:
    as_yaml = keys("--create-namespace", "--namespace", "a", "--name", "b")
    listed = list(yaml.safe_load_all(as_yaml.output))
    assert [each["kind"] for each in listed] == ["Namespace", "Secret", "Secret", "ConfigMap", "Secret"]
    assert {each["metadata"]["name"] for each in listed} == {"a", "b-keys", "b-tls", "b-ca", "b-admin-token"}
    document = json.loads(keys("--json", "--without-tls").output)
    assert (document["kind"], len(document["items"])) == ("List", 2)


def test_a_file_of_keys_is_private_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    assert keys("--out", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    done = keys("--out", str(file))
    assert done.exit_code == 1
    assert "exists; nothing was made" in done.output
    assert file.read_bytes() == before


def test_keys_are_not_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbs.cli.k8s_keys.is_terminal", lambda: True)
    done = keys()
    assert done.exit_code == 1
    assert "PRIVATE" not in done.output
    assert "kubectl create -f -" in done.output


@pytest.mark.parametrize(
    "wrong",
    [
        ["--namespace", "A"],
        ["--namespace", "a/b"],
        ["--name", "-a"],
        ["--name", "a" * 51],
        ["--token-lifetime", "1 day"],
        ["surplus"],
    ],
    ids=["capital", "slash", "hyphen", "long", "duration", "argument"],
)
def test_wrong_use_is_told(wrong: Sequence[str]) -> None:
    assert keys(*wrong).exit_code == 2


@pytest.mark.parametrize("host", ["bad..host", "a/b", "300.1.1.1", "-a", "a b", ""])
def test_keys_for_a_host_that_is_none_are_not_made(host: str) -> None:
    done = keys("--host", host)
    assert done.exit_code == 2
    assert "is no host name and no address" in done.output
    assert "Secret" not in done.output


def test_keys_into_a_folder_that_is_not_there_are_not_made(tmp_path: Path) -> None:
    done = keys("--out", str(tmp_path / "absent/keys.yaml"))
    assert done.exit_code == 1
    assert "is no folder; nothing was made" in done.output
