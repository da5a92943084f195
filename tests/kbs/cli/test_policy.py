"""`kbs policy` against a broker in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.broker import POLICIES, BrokerUnderTest
from tests.kbs.cli.conftest import Run, bad_json, good_json


@pytest.mark.parametrize("spelling", ["sample-demo", "resource/sample-demo", "upstream/deny-all"])
def test_a_shipped_text_is_set_by_name_and_shown_byte_for_byte(run: Run, spelling: str) -> None:
    name = spelling.removeprefix("resource/")
    result = run("policy", "set-resource", "--shipped", spelling, "--reason", "because")
    assert result.exit_code == 0, result.output
    assert f"shipped resource/{name}, version 1" in result.stdout
    text = (POLICIES / "resource" / f"{name}.rego").read_text()
    assert run("policy", "show", "resource", "resource-policy").stdout == text
    found = good_json(run("policy", "show", "resource", "resource-policy", "--json"))
    assert (found["text"], found["origin"]) == (text, f"shipped:resource/{name}")  # recognised, so no opa is needed
    assert [each["version"] for each in found["history"]] == [0, 1]
    assert found["history"][1]["reason"] == "because"


def test_what_the_broker_warns_of_is_shown(broker: BrokerUnderTest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = broker.broker.policies
    real = policies.set
    monkeypatch.setattr(policies, "set", lambda *args, **more: replace(real(*args, **more), warnings=("mind [b]this",)))
    result = run("policy", "set-resource", "--shipped", "deny-all", "--json")
    assert (result.exit_code, json.loads(result.stdout)["version"]) == (0, 1)
    assert result.stderr == "warning: mind [b]this\n"


def test_a_file_is_sent_as_it_is(run: Run) -> None:
    path = POLICIES / "evidence" / "cpu.rego"
    assert run("policy", "set-evidence", "default_cpu", "--file", path).exit_code == 0
    found = good_json(run("policy", "show", "evidence", "default_cpu", "--json"))
    assert found["text"] == path.read_text()


def test_list_and_history_and_rollback(run: Run) -> None:
    run("policy", "set-resource", "--well-known", "deny-all")
    run("policy", "set-resource", "--shipped", "allow-all")
    listed = good_json(run("policy", "list", "--json"))
    versions = {(each["kind"], each["id"]): each["version"] for each in listed}
    assert versions["resource", "resource-policy"] == 2
    assert versions["evidence", "default_cpu"] == 0
    assert "resource-policy" in run("policy", "list").stdout
    assert good_json(run("policy", "rollback", "resource", "resource-policy", 1, "--json"))["version"] == 3
    table = run("policy", "show", "resource", "resource-policy", "--history").stdout
    assert [line.split()[0] for line in table.splitlines()] == ["version", "0", "1", "2", "3"]


def test_one_source_is_needed_and_wrong_names_list_the_right_ones(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.rego"
    path.write_text("package policy\n")
    both = run("policy", "set-resource", "--shipped", "deny-all", "--file", path)
    none = run("policy", "set-resource")
    wrong = run("policy", "set-resource", "--shipped", "nonsense")
    other_kind = run("policy", "set-resource", "--shipped", "evidence/cpu")
    assert [result.exit_code for result in (both, none, wrong, other_kind)] == [2] * 4
    assert "allow-all" in wrong.stderr
    assert "sample-demo" in wrong.stderr
    assert "upstream/affirming" in wrong.stderr


def test_a_refused_text_changes_nothing(run: Run) -> None:
    found = bad_json(run("policy", "set-resource", "--file", "-", "--json", stdin=b"\xff not a policy"))
    assert found["status"] == 422
    listed = good_json(run("policy", "list", "--json"))
    assert {each["version"] for each in listed} == {0}


def test_lost_compare_and_set(run: Run) -> None:
    assert run("policy", "set-resource", "--shipped", "deny-all", "--expected", 0).exit_code == 0
    assert run("policy", "set-resource", "--shipped", "allow-all", "--expected", 0).exit_code == 1


def test_unknown_kind_and_unknown_version(run: Run) -> None:
    assert run("policy", "show", "nonsense", "x").exit_code == 2
    assert "try: kbs policy list" in run("policy", "rollback", "evidence", "default_cpu", 9).stderr
