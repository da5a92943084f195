"""`kbs spiffe rotate` against a broker in this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.broker import BrokerUnderTest, Edge
from tests.kbs.cli.conftest import BrokerTransport, Run, bad_json, good_json, invoke

OPTIONS = (
    '{trust_domain = "example.org", identity = [{name = "web", path = "/tee/{d}", '
    'claims = {d = "/submods/cpu0/ear.veraison.annotated-evidence/sample/launch_digest"}}]}'
)


@pytest.fixture
def spiffe(tmp_path: Path) -> Iterator[BrokerUnderTest]:
    settings = {"KBS__PLUGINS__ENABLED": '["resource", "spiffe"]', "KBS__PLUGINS__OPTIONS__SPIFFE": OPTIONS}
    made = BrokerUnderTest(tmp_path / "spiffe", Edge.FLASK, settings=settings)
    yield made
    made.close()


def _shape(text: str) -> list[list[str]]:
    """Words of each line, without those that are new keys' each time."""
    return [[re.sub(r"^[A-Za-z0-9_-]{16}$", "key", word) for word in line.split()] for line in text.splitlines()]


def test_rotation(spiffe: BrokerUnderTest) -> None:
    transport = BrokerTransport(spiffe)
    place = ("--data", spiffe.data)
    shown = invoke(transport, "spiffe", "rotate", *place)
    assert (shown.exit_code, shown.stderr) == (0, "")
    page = (Path(__file__).parents[3] / "docs/plugins/spiffe.md").read_text(encoding="utf-8")
    assert _shape(re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]) == _shape(shown.stdout)
    keys = spiffe.call("GET", "/.well-known/spiffe-bundle").json["keys"]
    assert [key["use"] for key in keys] == ["x509-svid", "x509-svid", "jwt-svid", "jwt-svid"]
    again = bad_json(invoke(transport, "spiffe", "rotate", *place, "--json"))
    assert again["reason"] == "version_conflict"
    told = invoke(transport, "spiffe", "rotate", "--at-once", *place)
    assert told.exit_code == 0
    assert "guests ask for new ones" in told.stderr
    assert len(spiffe.call("GET", "/.well-known/spiffe-bundle").json["keys"]) == 2
    (only,) = good_json(invoke(transport, "spiffe", "rotate", "--at-once", *place, "--json"))["generations"]
    assert (only["generation"], only["state"]) == (4, "signing")
    assert "PRIVATE" not in str(only)


def test_who_may_not_and_where_it_is_not(spiffe: BrokerUnderTest, run: Run, tmp_path: Path) -> None:
    assert run("spiffe", "rotate").exit_code == 1  # a broker without the plugin
    transport = BrokerTransport(spiffe)
    (tmp_path / "weak").write_text(spiffe.token_for("resource-writer"))
    refused = invoke(transport, "spiffe", "rotate", "--data", spiffe.data, "--token-file", tmp_path / "weak")
    assert refused.exit_code == 1
    assert "403 AdminAuthAccess" in refused.stderr
    assert spiffe.call("PUT", "/kbs/v0/spiffe/authority", body=b'{"rotate": "at-once"}').status == 401
    assert len(spiffe.call("GET", "/.well-known/spiffe-bundle").json["keys"]) == 2
    strange = httpx.MockTransport(lambda _: httpx.Response(200, json={"generations": []}))
    assert "no generations" in invoke(strange, "spiffe", "rotate", "--data", spiffe.data).stderr
