"""`kbs policy` beyond setting: scopes, history, diff, candidates, what-if."""

from __future__ import annotations

import pytest

from kbs.client.errors import PolicyDenied
from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import Run, good_json

SCOPE = ("resource", "path:team-a")


def deny(run: Run, *more: object) -> None:
    result = run("policy", "set", *SCOPE, "--shipped", "deny-all", *more)
    assert result.exit_code == 0, result.output


def test_a_scope_is_set_listed_and_removed(run: Run) -> None:
    deny(run, "--reason", "because")
    listed = {each["id"] for each in good_json(run("policy", "list", "--json"))}
    assert "path:team-a" in listed
    assert "removed" in run("policy", "remove", *SCOPE).stdout
    assert run("policy", "remove", *SCOPE).exit_code == 1


def test_history_diff_and_old_texts(run: Run) -> None:
    deny(run, "--reason", "because")
    assert run("policy", "set", *SCOPE, "--shipped", "allow-all", "--expected", 7).exit_code == 1
    run("policy", "set", *SCOPE, "--shipped", "allow-all", "--expected", 1)
    found = good_json(run("policy", "history", *SCOPE, "--json"))
    assert [(each["version"], each["reason"]) for each in found] == [(1, "because"), (2, "")]
    assert "because" in run("policy", "history", *SCOPE).stdout
    changed = run("policy", "diff", *SCOPE, 1).stdout
    assert changed.startswith("--- version 1\n+++ active\n")
    assert run("policy", "diff", *SCOPE, 1, 2).stdout.splitlines()[2:] == changed.splitlines()[2:]
    assert run("policy", "diff", *SCOPE, 2, 2).stdout == ""
    assert good_json(run("policy", "diff", *SCOPE, 1, "--json"))["diff"][0] == "--- version 1"
    old = run("policy", "show", *SCOPE, "--version", 1).stdout
    assert good_json(run("policy", "show", *SCOPE, "--version", 1, "--json"))["text"] == old
    assert run("policy", "rollback", *SCOPE, 1, "--expected", 1).exit_code == 1
    assert run("policy", "rollback", *SCOPE, 1, "--expected", 2, "--reason", "no").exit_code == 0
    assert run("policy", "show", *SCOPE).stdout == old


def test_a_candidate_from_staging_to_activation(run: Run) -> None:
    deny(run, "--stage", "--reason", "try")
    assert run("policy", "show", *SCOPE).exit_code == 1  # nothing is active
    shown = run("policy", "candidate", *SCOPE).stdout
    assert "0 evaluated, 0 would have differed" in shown
    digest = good_json(run("policy", "candidate", *SCOPE, "--json"))["digest"]
    text = run("policy", "candidate", *SCOPE, "--text").stdout
    assert run("policy", "activate", *SCOPE, "--digest", "00").exit_code == 1
    assert good_json(run("policy", "activate", *SCOPE, "--digest", digest, "--json"))["version"] == 1
    assert run("policy", "show", *SCOPE).stdout == text
    assert good_json(run("policy", "history", *SCOPE, "--json"))[0]["reason"] == "try"
    deny(run, "--stage")
    assert run("policy", "discard", *SCOPE).exit_code == 0
    assert run("policy", "discard", *SCOPE).exit_code == 1


def test_what_if_names_what_would_change(run: Run, broker: BrokerUnderTest) -> None:
    broker.put_secret("team-a/key/1")
    broker.use_policy("deny-all")
    with pytest.raises(PolicyDenied) as caught:
        broker.attested().get_resource("team-a/key/1")
    allow = run("policy", "set", "resource", "resource-policy", "--shipped", "allow-all", "--stage")
    assert allow.exit_code == 0
    table = run("policy", "what-if").stdout
    assert table.startswith("1 decisions replayed since 2026-06-15 12:00:00: 1 would change\n")
    assert caught.value.problem.decision is not None
    assert caught.value.problem.decision in table
    found = good_json(run("policy", "what-if", "--last", 1, "--json"))
    assert found["changed"][0]["after"] == {"allow": True}
    evidence = run("policy", "what-if", "--kind", "evidence", "--id", "default_cpu")
    assert evidence.exit_code == 1  # nothing is staged there
