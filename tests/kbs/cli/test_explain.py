"""`kbs explain`: from the log and from the broker, for people and for scripts."""

from __future__ import annotations

import json
import shlex
from typing import Any

import httpx
import pytest

from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import BrokerTransport, Run, bad_json, good_json, invoke

URL = "https://127.0.0.1:8080"


def _denied(run: Run, *claims: str) -> str:
    words = [word for claim in claims for word in ("--claim", claim)]
    decision = bad_json(run("guest", "get", "default/key/1", *words, "--json"))["decision"]
    assert isinstance(decision, str)
    return decision


@pytest.mark.usefixtures("ready")
def test_the_log_and_the_broker_say_the_same(broker: BrokerUnderTest, run: Run) -> None:
    decision = _denied(run, 'launch_digest="ffff"')
    offline = good_json(invoke(None, "explain", decision, "--data", broker.data, "--json"))
    asked = good_json(
        invoke(BrokerTransport(broker), "explain", decision, "--data", broker.data, "--url", URL, "--json")
    )
    assert offline == asked
    assert (offline["outcome"], offline["subject"]) == ("denied", "resource/default/key/1")
    (cause,) = [cause for cause in offline["causes"] if cause["where"] == "cpu0"]
    assert (cause["claim"], cause["seen"], cause["expected"]) == ("sample.launch_digest", "ffff", ["abcde"])
    assert (cause["rule"], cause["reference"]) == ("executables", "launch_digest")
    assert set(offline["rules"]) == {"resource policy", "evidence policy of cpu0", "reference values"}


@pytest.mark.usefixtures("ready")
def test_the_table_names_claim_seen_expected_rule_and_versions(run: Run) -> None:
    text = run("explain", _denied(run, "debug=true")).stdout
    assert text.startswith("denied  resource/default/key/1\n")
    (line,) = [line for line in text.splitlines() if "sample.debug" in line]
    assert line.split() == ["cpu0", "sample.debug", "true", "false", "configuration"]
    for name in ("resource policy: ", "evidence policy of cpu0: ", "reference values: "):
        assert name in text
    assert "kbs reference set" not in text  # nobody vouches for debug mode


@pytest.mark.usefixtures("ready")
def test_the_command_that_mends_it_does(broker: BrokerUnderTest, run: Run) -> None:
    hostile = "it's; $(id) [red]`x`\x1b[2J"
    claim = f"launch_digest={json.dumps(hostile)}"
    text = run("explain", _denied(run, claim)).stdout
    assert "\x1b" not in text
    assert "[red]" in text
    (line,) = [line.strip() for line in text.splitlines() if "kbs reference set" in line]
    words = shlex.split(line)
    assert words[:4] == ["kbs", "reference", "set", "launch_digest"]
    assert json.loads(words[4]) == ["abcde", hostile]
    assert words[5:] == ["--data", str(broker.data)]
    assert run(*words[1:5]).exit_code == 0
    assert run("guest", "get", "default/key/1", "--claim", claim).exit_code == 0


@pytest.mark.usefixtures("ready")
def test_what_was_granted_is_explained_too(broker: BrokerUnderTest, run: Run) -> None:
    assert run("guest", "get", "default/key/1").exit_code == 0
    decision = broker.audit_records()[-1]["decision"]
    assert run("explain", decision).stdout.startswith("granted  resource/default/key/1\n")


def test_an_unknown_decision_leads_to_the_log(broker: BrokerUnderTest, run: Run) -> None:
    for result in (run("explain", "0" * 32), run("explain", "0" * 32, "--url", URL)):
        assert result.exit_code == 1
        assert "no decision" in result.stderr
        assert f"try: kbs audit tail --data {broker.data}" in result.stderr


def test_a_log_that_does_not_decode_leads_to_verify(broker: BrokerUnderTest, run: Run) -> None:
    log = broker.data / "audit/log.jsonl"
    decision = "a" * 32
    log.write_bytes(b'{"decision":"%s", not json\n' % decision.encode())
    assert "kbs audit verify" in run("explain", decision).stderr
    log.unlink()
    assert "no audit log to read" in run("explain", decision).stderr


def test_a_strange_answer_is_shown_without_harm(broker: BrokerUnderTest) -> None:
    answer: dict[str, Any] = {"outcome": "\x1b[2Jgranted", "subject": "[bold]x[/bold]", "causes": [{"seen": "\x07"}]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    result = invoke(transport, "explain", "x", "--url", URL)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "[bold]x[/bold]" in result.stdout
