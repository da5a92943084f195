"""A runner of `kbs` commands against a broker in this process, or against prepared answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from kbs.cli import kbs
from tests.fakes.broker import BrokerUnderTest, Edge

REFERENCES = {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}

Run = Callable[..., Result]


class BrokerTransport(httpx.BaseTransport):
    """httpx onto a broker in this process."""

    def __init__(self, broker: BrokerUnderTest) -> None:
        self._broker = broker

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        framing = ("host", "content-length", "connection")
        headers = [(name, value) for name, value in request.headers.items() if name not in framing]
        answer = self._broker.call(request.method, request.url.raw_path.decode("ascii"), headers, request.read())
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)


class Trustee(httpx.BaseTransport):
    """The reference broker as far as uploads go: no versions, conditions ignored, every upload is taken.

    404 `PluginNotFound` for what lists versions (kbs-protocol 1.5).
    """

    def __init__(self) -> None:
        self.methods: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.methods.append(request.method)
        if request.method == "POST":
            return httpx.Response(200)
        kind = "https://github.com/confidential-containers/kbs/errors/PluginNotFound"
        return httpx.Response(404, json={"type": kind, "detail": "Plugin admin not found"})


def invoke(transport: httpx.BaseTransport | None, *arguments: Any, stdin: bytes | None = None) -> Result:
    """Run one command; anything that escapes the wall fails the test."""
    result = CliRunner().invoke(kbs, [str(each) for each in arguments], obj=transport, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerUnderTest]:
    """A broker with the sample TEE on, and nothing in it."""
    broker = BrokerUnderTest(tmp_path / "data", Edge.FLASK)
    yield broker
    broker.close()


@pytest.fixture
def run(broker: BrokerUnderTest) -> Run:
    """Runs a command with `--data` of the broker; the answer in `.stdout` and `.stderr`."""
    transport = BrokerTransport(broker)

    def run(*arguments: Any, stdin: bytes | None = None) -> Result:
        return invoke(transport, *arguments, "--data", broker.data, stdin=stdin)

    return run


@pytest.fixture
def ready(run: Run) -> None:
    """The secret `default/key/1`, the demonstration policy, and values that the software guest meets."""
    for name, value in REFERENCES.items():
        assert run("reference", "set", name, json.dumps(value)).exit_code == 0
    assert run("policy", "set-resource", "--shipped", "sample-demo").exit_code == 0
    assert run("resource", "set", "default/key/1", "--file", "-", stdin=b"a \0 secret\n").exit_code == 0


def good_json(result: Result) -> Any:
    """The document of a command that succeeded with `--json`."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def bad_json(result: Result) -> Any:
    """The document of a command that was refused with `--json`."""
    assert (result.exit_code, result.stderr) == (1, ""), result.output
    return json.loads(result.stdout)
