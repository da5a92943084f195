"""`kbs policy lint`, `check`, `fmt`, `test`, `coverage`, `eval` on files, and what an upload says of the same texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kbs.client.errors import PolicyDenied
from tests.fakes.broker import POLICIES, BrokerUnderTest
from tests.kbs.cli.conftest import Run, bad_json, good_json, invoke

DOUBTFUL = "package policy\n\ndefault allow := false\n\nallow if not input.submods.cpu0.bad\n"
CLEAN = 'package policy\n\ndefault allow := false\n\nallow if input.submods.cpu0["ear.status"] == "affirming"\n'
TESTS = """package mine_test

import data.policy

test_good if policy.allow with input as data.tokens.snp.good

test_unregistered if not policy.allow with input as data.tokens.snp.unregistered
"""
VECTORS = POLICIES.parent / "tests/vectors"


def tool(*arguments: Any, opa: Path) -> Any:
    return invoke(None, "policy", *arguments, "--opa", opa)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.rego").write_text(CLEAN)
    (tmp_path / "mine_test.rego").write_text(TESTS)
    return tmp_path


@pytest.fixture
def opa_on_path(opa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker of this test finds it as an installed one would."""
    monkeypatch.setenv("PATH", str(opa.parent), prepend=os.pathsep)


@pytest.mark.opa
def test_lint_of_a_clean_folder(folder: Path, opa: Path) -> None:
    result = tool("lint", folder, "--strict", opa=opa)
    assert (result.exit_code, result.stdout) == (0, "clean 1 policy\n")


@pytest.mark.opa
def test_lint_shows_place_severity_and_rule(folder: Path, opa: Path) -> None:
    path = folder / "mine.rego"
    path.write_text(DOUBTFUL)
    result = tool("lint", path, opa=opa)
    assert result.exit_code == 0  # a warning
    assert f"{path}:5:10" in result.stdout
    assert "negated-claim" in result.stdout
    assert tool("lint", path, "--strict", opa=opa).exit_code == 1
    [document] = json.loads(tool("lint", path, "--json", opa=opa).stdout)
    [finding] = document["findings"]
    assert (finding["rule"], finding["severity"], finding["line"], finding["column"]) == (
        "negated-claim",
        "warning",
        5,
        10,
    )
    assert (document["kind"], document["file"]) == ("resource", str(path))


@pytest.mark.opa
def test_an_error_is_exit_status_1(folder: Path, opa: Path) -> None:
    path = folder / "mine.rego"
    path.write_text(CLEAN.replace("package policy", "package mine"))
    assert tool("lint", path, opa=opa).exit_code == 1
    found = json.loads(tool("check", path, "--json", opa=opa).stdout)
    assert found[0]["ok"] is False
    assert found[0]["error"] == "line 1, column 1: the package must be exactly `policy` [wrong-package]"


@pytest.mark.opa
def test_check_does_what_an_upload_does(folder: Path, opa: Path) -> None:
    path = folder / "mine.rego"
    result = tool("check", path, opa=opa)
    assert (result.exit_code, result.stdout.split(",")[0]) == (0, f"good resource policy {path}")
    path.write_text(DOUBTFUL)
    result = tool("check", path, opa=opa)
    assert result.exit_code == 1
    assert "1 of 2 tests fail: test_unregistered (line" in result.stdout
    (folder / "mine_test.rego").unlink()
    result = tool("check", path, opa=opa)
    assert result.exit_code == 0
    assert "[negated-claim]" in result.stderr
    assert tool("check", path, "--strict", opa=opa).exit_code == 1


@pytest.mark.opa
def test_fmt(folder: Path, opa: Path) -> None:
    path = folder / "mine.rego"
    assert tool("fmt", folder, "--check", opa=opa).exit_code == 0
    path.write_text(CLEAN.replace("allow if input", "allow   if input"))
    result = tool("fmt", folder, "--check", opa=opa)
    assert result.exit_code == 1
    assert "+allow if input" in result.stdout
    assert json.loads(tool("fmt", folder, "--json", opa=opa).stdout) == {"changed": [str(path)], "written": True}
    assert path.read_text() == CLEAN


@pytest.mark.opa
def test_test_and_coverage(folder: Path, opa: Path) -> None:
    result = tool("test", folder, opa=opa)
    assert (result.exit_code, result.stdout) == (0, "passed 2 tests of 1 policies\n")
    [document] = json.loads(tool("test", folder / "mine_test.rego", "--run", "good", "--json", opa=opa).stdout)
    assert [(each["name"], each["passed"]) for each in document["tests"]] == [("test_good", True)]
    assert tool("coverage", folder, "--fail-under", 100, opa=opa).exit_code == 0
    (folder / "mine_test.rego").write_text(TESTS.replace("not policy", "policy"))
    result = tool("test", folder, opa=opa)
    assert result.exit_code == 1
    assert f"{folder / 'mine_test.rego'}:7" in result.stdout


@pytest.mark.opa
def test_no_tests_are_not_a_success(folder: Path, opa: Path) -> None:
    (folder / "mine_test.rego").unlink()
    assert tool("test", folder, opa=opa).exit_code == 2
    assert tool("coverage", folder, opa=opa).exit_code == 2
    (folder / "mine_test.rego").write_text("package x_test\n")
    assert tool("test", folder, opa=opa).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("snp.good",), None),
        (("snp.unknown",), "snp.debug"),
        (("nobody.good",), "snp.debug"),
        (("",), "snp.debug"),
    ],
)  # fmt: skip
def test_eval_of_a_shipped_policy_over_a_fixture_needs_no_opa(arguments: tuple[str, ...], words: str | None) -> None:
    result = invoke(None, "policy", "eval", POLICIES / "evidence/cpu.rego", "--fixture", *arguments, "--json")
    if words is not None:
        assert result.exit_code == 2
        assert words in result.stderr
        return
    found = good_json(result)
    assert (found["status"], found["origin"]) == ("affirming", "shipped:evidence/cpu")
    assert all(each["ok"] for each in found["findings"])


@pytest.mark.parametrize(
    ("variant", "status"), [("debug", "warning"), ("vmpl1", "warning"), ("unbound", "contraindicated")]
)
def test_eval_says_what_is_wrong(variant: str, status: str) -> None:
    path = POLICIES / "evidence/cpu.rego"
    assert good_json(invoke(None, "policy", "eval", path, "--fixture", f"snp.{variant}", "--json"))["status"] == status
    shown = invoke(None, "policy", "eval", path, "--fixture", f"snp.{variant}").stdout
    assert shown.startswith(status)
    assert "NO" in shown


def test_eval_over_saved_evidence(tmp_path: Path) -> None:
    case = VECTORS / "snp/synthetic/debug.json"
    found = good_json(invoke(None, "policy", "eval", POLICIES / "evidence/cpu.rego", "--case", case, "--json"))
    assert {"snp.policy_debug_allowed"} <= {each["claim"] for each in found["findings"] if not each["ok"]}
    found = good_json(invoke(None, "policy", "eval", POLICIES / "resource/affirming.rego", "--case", case, "--json"))
    assert found["allow"] is False
    forged = json.loads(case.read_text())
    forged["report_data"] = "00" * 48
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    result = invoke(
        None, "policy", "eval", POLICIES / "evidence/cpu.rego", "--case", tmp_path / "forged.json", "--json"
    )
    assert "error" in bad_json(result)


@pytest.mark.opa
def test_eval_of_an_own_policy_with_its_trace(folder: Path, opa: Path) -> None:
    (folder / "claims.json").write_text('{"submods": {"cpu0": {"ear.status": "affirming"}}}')
    found = good_json(
        tool("eval", folder / "mine.rego", "--input", folder / "claims.json", "--trace", "--json", opa=opa)
    )
    assert found["allow"] is True
    assert "policy.rego:5" in found["trace"]
    assert tool("eval", folder / "mine.rego", "--fixture", "snp.unregistered", opa=opa).stdout.startswith("denied")


def test_eval_needs_exactly_one_input() -> None:
    path = POLICIES / "evidence/cpu.rego"
    assert invoke(None, "policy", "eval", path).exit_code == 2
    assert invoke(None, "policy", "eval", path, "--fixture", "snp.good", "--input", path).exit_code == 2


def test_a_kind_that_cannot_be_told_has_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "mine.rego").write_text("package policy\nx := 1\n")
    result = invoke(None, "policy", "lint", tmp_path / "mine.rego")
    assert result.exit_code == 2
    assert "--kind" in result.stderr


@pytest.mark.opa
def test_an_upload_is_linted(opa_on_path: None, run: Run, folder: Path) -> None:
    path = folder / "mine.rego"
    path.write_text(CLEAN.replace("default allow := false\n", ""))
    found = bad_json(run("policy", "set-resource", "--file", path, "--json"))
    assert (found["status"], found["reason"]) == (422, "policy_unacceptable")
    assert "[no-default]" in found["detail"]
    assert [each["version"] for each in good_json(run("policy", "list", "--json")) if each["kind"] == "resource"] == [0]
    path.write_text(DOUBTFUL)
    found = bad_json(run("policy", "set-resource", "--file", path, "--json"))
    assert "1 of 2 tests fail" in found["detail"]
    assert [each["version"] for each in good_json(run("policy", "list", "--json")) if each["kind"] == "resource"] == [0]
    result = run("policy", "set-resource", "--file", path, "--no-tests")
    assert result.exit_code == 0
    assert "line 5, column 10" in result.stderr
    assert "[negated-claim]" in result.stderr
    [change] = [each for each in good_json(run("audit", "tail", "--json")) if "rule.changed" in json.dumps(each)]
    assert "[negated-claim]" in json.dumps(change)


@pytest.mark.opa
def test_a_text_goes_live_with_its_tests(opa_on_path: None, run: Run, folder: Path) -> None:
    path, other = folder / "mine.rego", folder / "other_test.rego"
    result = run("policy", "set", "resource", "path:team-a", "--file", path)
    assert result.stdout == f"set resource policy path:team-a from {path} with its tests, version 1\n"
    assert run("policy", "set", "resource", "path:team-a", "--file", path, "--stage").exit_code == 0
    other.write_text("package policy_test\ntest_no if data.policy.allow with input as {}\n")
    given = ("policy", "set", "resource", "path:team-a", "--file", path, "--tests", other)
    assert "1 of 1 tests fail: test_no (line 2)" in bad_json(run(*given, "--json"))["detail"]
    assert "test_no" in bad_json(run(*given, "--stage", "--json"))["detail"]
    assert run(*given, "--no-tests").exit_code == 2
    other.write_text("package policy_test\nnothing := 1\n")
    assert "no test ran" in bad_json(run(*given, "--json"))["detail"]
    other.write_text("package policy_test\n" + "test_x if true\n" * 501)
    assert "more than 500" in bad_json(run(*given, "--json"))["detail"]


@pytest.mark.opa
def test_a_broker_does_the_same_as_tools_here(opa_on_path: None, run: Run, folder: Path, opa: Path) -> None:
    path = folder / "mine.rego"
    path.write_text(DOUBTFUL.replace("allow if", "allow   if"))
    for words in (("lint",), ("check",), ("test",)):
        here, there = tool(*words, path, "--json", opa=opa), run("policy", *words, path, "--json")
        assert here.exit_code == there.exit_code
        assert _timeless(here.stdout) == _timeless(there.stdout)
    assert "tests fail" in bad_json(run("policy", "coverage", path, "--json"))["error"]
    assert run("policy", "fmt", path).stdout == f"written {path}\n"
    assert path.read_text() == DOUBTFUL
    assert invoke(None, "policy", "lint", path, "--opa", opa, "--url", "http://127.0.0.1:1").exit_code == 2
    path.write_text(CLEAN)
    assert good_json(run("policy", "coverage", path, "--json"))[0]["percent"] == 100
    claims = folder / "claims.json"
    claims.write_text("{}")
    assert run("policy", "eval", path, "--input", claims).stdout.startswith("denied")


def _timeless(text: str) -> Any:
    documents = json.loads(text)
    for each in (test for document in documents for test in document.get("tests", [])):
        del each["seconds"]
    return documents


def test_eval_saves_and_reads_one_document(tmp_path: Path) -> None:
    saved, cpu = tmp_path / "saved.json", POLICIES / "evidence/cpu.rego"
    made = invoke(None, "policy", "eval", cpu, "--fixture", "snp.debug", "--save", saved, "--json")
    assert good_json(invoke(None, "policy", "eval", "--file", saved, "--json")) == good_json(made)
    upstream = invoke(
        None, "policy", "eval", "--policy", "upstream/cpu", "--file", saved, "--json", "--kind", "evidence"
    )
    assert good_json(upstream)["origin"] == "shipped:evidence/upstream/cpu"


def test_eval_with_compound_sets(tmp_path: Path) -> None:
    shown = ("policy", "eval", "--policy", "same-release", "--fixture", "snp.good", "--json")
    assert good_json(invoke(None, *shown))["status"] == "affirming"
    saved, sets = tmp_path / "saved.json", tmp_path / "sets.json"
    invoke(None, *shown, "--save", saved)
    assert good_json(invoke(None, "policy", "eval", "--file", saved, "--json"))["status"] == "affirming"
    sets.write_text('[{"snp_launch_measurement": ["00"]}]')
    assert good_json(invoke(None, *shown, "--reference-sets", sets))["status"] == "contraindicated"
    sets.write_text("{}")
    assert "list of objects" in bad_json(invoke(None, *shown, "--reference-sets", sets))["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--file", "CPU"), "malformed"),
        (("--file", "EMPTY"), "no document of the playground"),
        (("--fixture", "snp.good"), "give a policy"),
        (("CPU", "--policy", "cpu", "--fixture", "snp.good"), "the policy once"),
        (("--policy", "nobody", "--fixture", "snp.good"), "no such file or shipped policy"),
        (("CPU", "--fixture", "snp.good", "--part", "cpu0"), "go with --decision"),
        (("CPU", "--fixture", "snp.good", "--decision", "0" * 32), "leave out fixture"),
    ],
)
def test_eval_refuses(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty.json").write_text("{}")
    known = {"CPU": POLICIES / "evidence/cpu.rego", "EMPTY": tmp_path / "empty.json"}
    result = invoke(None, "policy", "eval", *(known.get(each, each) for each in arguments))
    assert result.exit_code in (1, 2)
    assert words in result.stderr


def test_eval_of_a_past_decision(broker: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    broker.put_secret()
    guest = broker.attested()
    with pytest.raises(PolicyDenied) as caught:
        guest.get_resource("default/key/1")
    release = caught.value.problem.decision
    attestation = good_json(run("explain", release, "--json"))["attestation"]
    shown = run("policy", "eval", "--decision", release).stdout
    assert "resource/default/key/1" in shown
    assert shown.count("denied") == 2
    allowed = run("policy", "eval", "--decision", release, "--policy", "allow-all").stdout
    assert "then  denied" in allowed
    assert "now   granted" in allowed
    broker.approve_sample()
    shown = run("policy", "eval", "--decision", attestation).stdout
    assert "the reference values are others since" in shown
    assert "affirming" in shown
    assert "sample.svn" in shown
    saved = tmp_path / "saved.json"
    assert run("policy", "eval", "--decision", attestation, "--save", saved).exit_code == 0
    assert good_json(invoke(None, "policy", "eval", "--file", saved, "--json"))["status"] == "affirming"
    assert run("policy", "set", "resource", "path:default", "--shipped", "deny-all").exit_code == 0
    for options, origin in (
        ((), "affirming"),
        (("--policy", "allow-all"), "allow-all"),
        (("--id", "path:default"), "deny-all"),
    ):
        assert run("policy", "eval", "--decision", release, *options, "--save", saved).exit_code == 0
        found = good_json(invoke(None, "policy", "eval", "--file", saved, "--json"))
        assert found["origin"] == f"shipped:resource/{origin}"
    broker.use_policy("allow-all")
    assert run("policy", "eval", "--decision", release, "--save", saved).exit_code == 0
    found = good_json(invoke(None, "policy", "eval", "--file", saved, "--json"))
    assert found["origin"] == "shipped:resource/deny-all"  # the one that says no
