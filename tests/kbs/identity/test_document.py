"""docs/pod-identity.md: its settings, its policy and its commands do what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from kbs.cli import kbs
from kbs.config import read
from kbs.identity.pod_tokens import open_pod_tokens
from kbs.policy.compile import Compiler
from kbs.policy.engine import PolicyKind
from tests.architecture.documents import ROOT, blocks, text_of
from tests.fakes.broker import StoppedClock
from tests.fakes.pod_tokens import FakeCluster

PAGE = blocks(text_of(ROOT / "docs/pod-identity.md"))
POD = {"cluster": "east", "namespace": "payments", "serviceaccount": "api", "pod": "api-0", "checked": "review"}


def block(kind: str) -> str:
    (found,) = (each.text for each in PAGE if each.kind == kind)
    return found


def test_the_settings(tmp_path: Path) -> None:
    FakeCluster().write_jwks(tmp_path / "west-jwks.json")
    text = block("toml").replace('ca_file = "east-ca.pem"\n', "")
    settings = read(text, {}, name="kbs.toml")
    tokens = open_pod_tokens(tmp_path, settings.identity.kubernetes, None, StoppedClock())
    west = FakeCluster("https://west.example.org")
    west.write_jwks(tmp_path / "west-jwks.json")
    assert tokens.verify(west.token(aud=["https://kbs.example.org"])).cluster == "west"


def test_the_volume_is_for_the_same_audience() -> None:
    (volume,) = yaml.safe_load(block("yaml"))["volumes"]
    (source,) = volume["projected"]["sources"]
    assert f'audience = "{source["serviceAccountToken"]["audience"]}"' in block("toml")


@pytest.mark.opa
def test_the_policy_has_nothing_that_lint_would_not_like(opa: Path) -> None:
    assert Compiler(opa, lambda: 0).lint(PolicyKind.RESOURCE, block("rego").encode()) == ()


def evaluated(tmp_path: Path, identity: object) -> tuple[int, str]:
    given = tmp_path / "pod.json"
    given.write_text(json.dumps(identity))
    words = ["policy", "eval", "--policy", "resource/by-pod-identity", "--fixture", "snp.good", "--json"]
    answer = CliRunner().invoke(kbs, [*words, "--resource", "east/payments.api/key", "--identity", str(given)])
    return answer.exit_code, answer.output


def test_a_policy_is_tried_with_a_pod(tmp_path: Path) -> None:
    code, output = evaluated(tmp_path, {"kubernetes": POD})
    assert code == 0, output
    assert json.loads(output)["allow"] is True
    code, output = evaluated(tmp_path, {"kubernetes": {**POD, "namespace": "other"}})
    assert json.loads(output)["allow"] is False
    (finding,) = (each for each in json.loads(output)["findings"] if not each["ok"])
    assert (finding["seen"], finding["expected"]) == ("other.api", "payments.api")
    code, output = evaluated(tmp_path, {})
    assert json.loads(output)["allow"] is False


@pytest.mark.parametrize(
    "identity", [POD, {"kubernetes": {"namespce": "a"}}, {"kubernetes": {"pod": 1}}, {"kubernetes": []}], ids=range(4)
)
def test_what_no_token_could_say(tmp_path: Path, identity: object) -> None:
    code, output = evaluated(tmp_path, identity)
    assert code != 0
    assert "identity" in output
