"""Which broker a command speaks to, and what people see when it says no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from kbs.cli.connection import settings_address
from tests.fakes.broker import BrokerUnderTest
from tests.kbs.cli.conftest import Run, bad_json, invoke
from tests.kbs.client.fake_broker import problem

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


class Answering:
    """Gives one answer, and keeps what was asked."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _ask(answer: httpx.Response | Exception, *options: Any) -> Result:
    return invoke(httpx.MockTransport(Answering(answer)), "status", *options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "the data"
    folder.mkdir()
    (folder / "kbs.toml").write_text('[server]\nlisten = ["127.0.0.1:9443"]\n')
    return folder


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ('listen = ["127.0.0.1:9443"]', "https://127.0.0.1:9443"),
        ('listen = ["0.0.0.0:8080"]', "https://127.0.0.1:8080"),
        ('listen = ["[::]:8080"]', "https://[::1]:8080"),
        ('listen = ["[::1]:8080"]', "https://[::1]:8080"),
        ('listen = ["kbs.example:8080", "127.0.0.1:1"]', "https://kbs.example:8080"),
        ('listen = ["127.0.0.1:1"]\ninsecure_http = true', "http://127.0.0.1:1"),
        ('listen = ["127.0.0.1:1"]\nadmin_listen = "127.0.0.1:2"', "https://127.0.0.1:2"),
    ],
)
def test_the_address_of_a_data_directory(data: Path, listen: str, address: str) -> None:
    (data / "kbs.toml").write_text(f"[server]\n{listen}\n")
    assert settings_address(data) == address


@pytest.mark.parametrize("listen", ["unix:/run/kbs.sock", "nonsense", ":8080"])
def test_a_listener_without_an_address_needs_the_option(data: Path, listen: str) -> None:
    (data / "kbs.toml").write_text(f'[server]\nlisten = ["{listen}"]\n')
    result = _ask(httpx.Response(200, json={}), "--data", data)
    assert result.exit_code == 1
    assert "is not HOST:PORT" in result.stderr
    assert _ask(httpx.Response(200, json={}), "--data", data, "--url", "https://x").exit_code == 0


def test_data_supplies_address_and_token_and_options_come_first(data: Path, tmp_path: Path) -> None:
    (data / "admin-token").write_text("aaaa.bbbb.cccc\n")
    other = tmp_path / "other"
    other.write_text(TOKEN)
    asked = Answering(httpx.Response(200, json={}))
    for options in ((), ("--url", "https://kbs.example:1"), ("--token-file", other)):
        assert invoke(httpx.MockTransport(asked), "status", "--data", data, *options).exit_code == 0
    urls = [str(request.url) for request in asked.requests]
    assert urls == [
        "https://127.0.0.1:9443/kbs/v0/admin/status",
        "https://kbs.example:1/kbs/v0/admin/status",
        "https://127.0.0.1:9443/kbs/v0/admin/status",
    ]
    tokens = [request.headers["Authorization"] for request in asked.requests]
    assert tokens == ["Bearer aaaa.bbbb.cccc", "Bearer aaaa.bbbb.cccc", f"Bearer {TOKEN}"]


def test_without_options_it_is_the_default_address_and_no_token() -> None:
    asked = Answering(httpx.Response(200, json={}))
    assert invoke(httpx.MockTransport(asked), "status").exit_code == 0
    (request,) = asked.requests
    assert str(request.url) == "https://127.0.0.1:8080/kbs/v0/admin/status"
    assert "Authorization" not in request.headers


def test_a_token_is_never_sent_in_the_clear_to_another_machine(data: Path) -> None:
    (data / "admin-token").write_text(TOKEN)
    asked = Answering(httpx.Response(200, json={}))
    result = invoke(httpx.MockTransport(asked), "status", "--data", data, "--url", "http://kbs.example")
    assert (result.exit_code, asked.requests) == (1, [])
    assert "plain HTTP" in result.stderr


def test_a_token_cannot_stand_in_the_arguments_and_is_not_repeated(data: Path, tmp_path: Path) -> None:
    assert _ask(httpx.Response(200, json={}), "--token", TOKEN).exit_code == 2
    bad = tmp_path / "bad"
    bad.write_text("not a token: hunter2")
    result = _ask(httpx.Response(200, json={}), "--token-file", bad)
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_settings_that_do_not_load(data: Path, tmp_path: Path) -> None:
    (data / "kbs.toml").write_text("[server]\nnonsense = 1\n")
    assert "nonsense" in _ask(httpx.Response(200, json={}), "--data", data).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    result = _ask(httpx.Response(200, json={}), "--data", empty)
    assert (result.exit_code, "kbs init" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("answer", "following"),
    [
        (problem(401, "AdminAuthAccess"), "kbs admin token --data {data} --out FILE; then"),
        (problem(403, "AdminAuthAccess"), "kbs admin token --data {data} --out FILE --role ROLE"),
        (problem(422, "PolicyEngineError", reason="policy_compiler_missing"), "kbs opa install"),
        (problem(403, "PolicyDeny", decision="d" * 32), f"kbs explain {'d' * 32} --data {{data}}"),
        (problem(401, "AttestationError", decision="d" * 32), f"kbs explain {'d' * 32} --data {{data}}"),
        (problem(503, "DependencyUnavailable"), "again in 7 seconds; kbs status --data {data}"),
        (httpx.ConnectError("refused"), "kbs serve --data {data}"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "--ca-file DATA/tls/ca.pem"),
    ],
)
def test_every_kind_of_no_names_what_to_run_next(
    data: Path, answer: httpx.Response | Exception, following: str
) -> None:
    wanted = following.format(data=f"'{data}'")  # the path has a space in it
    result = _ask(answer, "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "try"]
    assert wanted in lines[1]
    assert wanted in bad_json(_ask(answer, "--data", data, "--json"))["next"]


def test_reason_and_status_are_shown() -> None:
    result = _ask(problem(422, "PolicyEngineError", "line 3: no", reason="policy_unacceptable"))
    assert result.stderr == "error: 422 PolicyEngineError: line 3: no [policy_unacceptable]\n"


def test_a_peers_text_does_not_steer_the_terminal() -> None:
    result = _ask(problem(422, "PolicyEngineError", "\x1b[2J[red]x", reason="\x07"))
    assert not {"\x1b", "\x07"} & set(result.stderr)
    assert "[red]x" in result.stderr


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"a":1,"a":2}'])
def test_another_programs_answer_is_an_error(body: bytes) -> None:
    for status in (200, 404, 500):
        assert _ask(httpx.Response(status, content=body)).exit_code == 1


def test_files_that_are_not_there_are_wrong_use(tmp_path: Path) -> None:
    for option in ("--data", "--token-file", "--ca-file"):
        assert _ask(httpx.Response(200, json={}), option, tmp_path / "absent").exit_code == 2


def test_the_real_refusal_of_an_admin_without_the_right(broker: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "auditor"
    path.write_text(broker.token_for("auditor"))
    found = bad_json(run("reference", "set", "svn", "1", "--token-file", path, "--json"))
    assert (found["status"], found["name"]) == (403, "AdminAuthAccess")
    path.write_text("a.b.c")
    found = bad_json(run("reference", "set", "svn", "1", "--token-file", path, "--json"))
    assert found["status"] == 401
    assert json.dumps(found).count("a.b.c") == 0
