"""`kbs status`: for people and for scripts."""

from __future__ import annotations

import httpx

from tests.kbs.cli.conftest import Run, good_json, invoke


def test_a_brokers_own_words(run: Run) -> None:
    found = good_json(run("status", "--json"))
    assert found["ready"] is True
    assert found["insecure"] == ["attestation.insecure_sample"]
    lines = dict(line.split(None, 1) for line in run("status").stdout.splitlines()[1:])
    assert lines["ready"] == "yes"
    assert lines["tees"] == ", ".join(found["tees"])
    assert lines["insecure"] == "attestation.insecure_sample"


def test_members_nobody_here_knows_are_shown_without_harm() -> None:
    answer = {"a\x1b": {"b": [1]}, "insecure": [], "ready": False, "n": 3, "x": "[red]\x1b[2J"}
    result = invoke(httpx.MockTransport(lambda _: httpx.Response(200, json=answer)), "status")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    for part in ('{"b": [1]}', "none", "no", "3", "[red]"):
        assert part in result.stdout


def test_an_answer_of_no_members() -> None:
    assert invoke(httpx.MockTransport(lambda _: httpx.Response(200, json={})), "status").exit_code == 0
