"""The command line against a scripted broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import httpx
import pytest

from rvps import cli
from rvps.cli import connection

TOKEN = "abc.def.ghi"
LINE = {
    "name": "svn",
    "value": ["1"],
    "issuer": "admin:alice#1",
    "statement": "1",
    "valid_from": "2026-11-21T10:00:00+00:00",
    "valid_until": "2027-11-21T10:00:00+00:00",
    "valid": True,
}
Run = Callable[..., click.testing.Result]


class Script:
    """One answer for every request, which it keeps."""

    def __init__(self) -> None:
        self.answer = httpx.Response(200)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer

    @property
    def line(self) -> str:
        (request,) = self.requests
        return f"{request.method} {request.url.raw_path.decode()}"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    found = Script()

    def client(url: str, _ca_file: Path | None) -> httpx.Client:
        return httpx.Client(base_url=url, transport=httpx.MockTransport(found))

    monkeypatch.setattr(connection, "http_client", client)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")

    def invoke(*arguments: str, stdin: str | None = None) -> click.testing.Result:
        options = [*arguments, "--url", "https://broker.test", "--token-file", str(token_file)]
        return click.testing.CliRunner().invoke(cli.main, options, input=stdin)

    return invoke


def test_register_sends_the_file_unchanged(script: Script, run: Run) -> None:
    message = '{"version":"0.1.0", "type":"sample","payload":"e30="}'
    result = run("register", "--file", "-", stdin=message)
    assert (result.exit_code, result.output) == (0, "Register provenance succeeded.\n")
    assert script.line == "POST /kbs/v0/reference-value"
    assert script.requests[0].content == message.encode()
    assert script.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert json.loads(run("register", "-p", "-", "--json", stdin=message).output) == {"registered": True}


def test_query_prints_the_value(script: Script, run: Run) -> None:
    script.answer = httpx.Response(200, json=["1"])
    result = run("query", "tdx/mr_td:1.0")
    assert (result.exit_code, result.output) == (0, 'Get reference values succeeded:\n["1"]\n')
    assert script.line == "GET /kbs/v0/reference-value/tdx/mr_td:1.0"
    assert run("query", "tdx/mr_td:1.0", "--json").output == '["1"]\n'


@pytest.mark.parametrize("name", ["rvps:///a/b:1", "a b", "größe", "a%2Fb", "../a", "a/.."])
def test_names_that_fit_no_path_are_looked_up_in_the_list(script: Script, run: Run, name: str) -> None:
    script.answer = httpx.Response(200, json=[{**LINE, "name": name, "valid": False}, {**LINE, "name": name}])
    assert run("query", name, "--json").output == '["1"]\n'
    assert script.requests[0].url.path == "/kbs/v0/admin/reference-values"
    assert dict(script.requests[0].url.params) == {"name": name}
    script.answer = httpx.Response(200, json=[{**LINE, "name": name, "valid": False}, LINE])
    result = run("query", name)
    assert result.exit_code == 1
    assert "Next: see what there is with `rvps list`" in result.output
    run("withdraw", name)
    assert dict(script.requests[-1].url.params) == {"name": name}


def test_list_shows_expired_values_as_such(script: Script, run: Run) -> None:
    script.answer = httpx.Response(200, json=[LINE, {**LINE, "name": "old\x1b[2J", "valid": False}])
    result = run("list")
    assert result.exit_code == 0
    assert "svn" in result.output
    assert "not valid now" in result.output
    assert "\x1b[2J" not in result.output
    assert json.loads(run("list", "--json").output)[0] == LINE


def test_withdraw(script: Script, run: Run) -> None:
    assert run("withdraw", "tdx/mr_td").output == "Withdrawn.\n"
    assert script.line == "DELETE /kbs/v0/admin/reference-values/tdx/mr_td"
    assert json.loads(run("withdraw", "a", "--json").output) == {"withdrawn": True}


@pytest.mark.parametrize(
    ("status", "following"),
    [(401, "kbs admin token"), (403, "role"), (404, "rvps list"), (422, "payload"), (503, "/healthz"), (500, "log")],
)
def test_a_refusal_says_what_to_do_next(script: Script, run: Run, status: int, following: str) -> None:
    script.answer = httpx.Response(status, json={"type": "x", "detail": "the \x1b[31mreason"})
    for arguments in (("query", "a"), ("list",), ("withdraw", "a")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert f"{status}: the \ufffd[31mreason\nNext: " in result.output
        assert following in result.output
        assert TOKEN not in result.output


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[1]", b"1"])
def test_answers_of_something_else_are_refused(script: Script, run: Run, answer: bytes) -> None:
    script.answer = httpx.Response(200, content=answer)
    assert run("list").exit_code == 1
    script.answer = httpx.Response(404, content=answer)
    assert "no problem of this protocol" in run("list").output


def test_no_answer(script: Script, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(
        connection, "http_client", lambda url, _: httpx.Client(base_url=url, transport=httpx.MockTransport(fail))
    )
    result = run("list")
    assert result.exit_code == 1
    assert "Next: check --url and --ca-file" in result.output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--url", "http://broker.test", "--token-file", "{token}"], "plain HTTP"),
        (["--url", "ftp://broker.test"], "no address"),
        (["--url", "https://b:x"], "--url"),
        (["--token-file", "{none}"], "no readable token file"),
        (["--ca-file", "{none}"], "PEM certificates"),
        (["--ca-file", "{token}"], "PEM certificates"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, options: list[str], text: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    filled = [option.format(token=token, none=tmp_path / "none") for option in options]
    result = click.testing.CliRunner().invoke(cli.main, ["list", *filled])
    assert result.exit_code == 1
    assert text in result.output
    assert "Next: " in result.output


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "ä"])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    result = click.testing.CliRunner().invoke(cli.main, ["list", "--token-file", str(file)])
    assert result.exit_code == 1
    assert "no readable token file" in result.output
    assert "words" not in result.output


def test_loopback_takes_a_token_over_plain_http(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    for host in ("127.0.0.1:8080", "localhost", "[::1]"):
        broker = connection.open_broker(f"http://{host}", token, None)
        assert broker.headers == {"Authorization": f"Bearer {TOKEN}"}
        assert TOKEN not in repr(broker)


def test_a_message_that_is_too_long_is_not_sent(script: Script, run: Run) -> None:
    result: Any = run("register", "--file", "-", stdin="x" * (13 << 20))
    assert result.exit_code == 1
    assert script.requests == []
