"""`kbs reference` against a broker in this process."""

from __future__ import annotations

import base64
import json

import pytest

from tests.kbs.cli.conftest import Run, bad_json, good_json


@pytest.mark.parametrize("value", ['["1"]', "1", "true", '"text"', '{"a": [1]}', "null"])
def test_any_json_value_is_kept_as_it_is(run: Run, value: str) -> None:
    result = run("reference", "set", "name", value)
    assert result.exit_code == 0, result.output
    (found,) = good_json(run("reference", "show", "name", "--json"))
    assert found["value"] == json.loads(value)
    assert found["valid"] is True
    assert found["issuer"].startswith("admin:")


def test_expiry(run: Run) -> None:
    assert run("reference", "set", "svn", '["1"]', "--expires", "2026-06-16T14:00:00+02:00").exit_code == 0
    (found,) = good_json(run("reference", "list", "--json"))
    assert found["valid_until"] == "2026-06-16T12:00:00+00:00"
    assert "2026-06-16 12:00:00" in run("reference", "list").stdout
    past = bad_json(run("reference", "set", "svn", "[]", "--expires", "2020-01-01T00:00:00Z", "--json"))
    assert (past["status"], past["name"]) == (422, "RvpsError")


@pytest.mark.parametrize("value", ["ab12", "['1']", "[1", "NaN", "", '{"a":1,"a":2}'])
def test_what_is_not_json_is_wrong_use(run: Run, value: str) -> None:
    result = run("reference", "set", "name", value)
    assert result.exit_code == 2
    assert "is not JSON" in result.stderr


@pytest.mark.parametrize("time", ["tomorrow", "2027-01-01T00:00:00", "2027-13-01T00:00:00Z"])
def test_a_time_without_a_zone_or_sense_is_wrong_use(run: Run, time: str) -> None:
    assert run("reference", "set", "name", "1", "--expires", time).exit_code == 2


def test_register_sends_the_message_of_a_file(run: Run) -> None:
    payload = base64.b64encode(b'{"svn": ["7"]}').decode()
    message = json.dumps({"version": "0.1.0", "type": "sample", "payload": payload}).encode()
    assert run("reference", "register", "--file", "-", stdin=message).exit_code == 0
    assert good_json(run("reference", "show", "svn", "--json"))[0]["value"] == ["7"]
    for bad in (b"[]", b"{", b"\xff"):
        result = run("reference", "register", "--file", "-", stdin=bad)
        assert result.exit_code == 1
        assert "the message" in result.stderr


def test_withdrawn_is_gone(run: Run) -> None:
    run("reference", "set", "svn", '["1"]')
    assert run("reference", "withdraw", "svn").exit_code == 0
    for command in ("withdraw", "show"):
        result = run("reference", command, "svn")
        assert result.exit_code == 1
        assert "try: kbs reference list --data " in result.stderr
