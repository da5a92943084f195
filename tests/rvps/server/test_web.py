"""The REST edge without a server: who may what, and how each refusal looks."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rvps import rest, signing
from rvps.client import embedded
from rvps.publishers.model import NOBODY, Publisher, Publishers, Trust, gather
from rvps.rest import Answer
from rvps.server.directory import Directory, Token
from rvps.server.metrics import Metrics
from rvps.server.reception import Reception
from rvps.server.web import Request, Web
from rvps.value_set import ValueSet
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable
from tests.rvps.test_service import AT, SECOND, sample

ADMIN, BROKER = "a" * 43, "b" * 43
V0 = "/kbs/v0/"
LIST = V0 + "admin/reference-values"


class Client:
    """Asks a `Web` over a store in memory."""

    def __init__(self, *, insecure_unsigned: bool = False, publishers: Publishers = NOBODY) -> None:
        self.at = AT
        self.store = MemoryStore()
        self.provider = embedded(self.store, conflict=Conflict, unavailable=Unavailable, publishers=lambda: publishers)
        self.metrics = Metrics(["--insecure-unsigned"] if insecure_unsigned else [])
        self.web = Web(
            reception=Reception(self.provider, lambda: self.at, insecure_unsigned),
            directory=Directory(Path("/nowhere"), Token(ADMIN), Token(BROKER)),
            clock=lambda: self.at,
            metrics=self.metrics,
            insecure=(),
        )

    def ask(
        self, method: str, target: str, body: Any = None, token: str | None = ADMIN, **headers: str
    ) -> tuple[int, Any]:
        answer = self.raw(method, target, body, token, **headers)
        return answer.status, json.loads(answer.body) if answer.body else None

    def raw(self, method: str, target: str, body: Any = None, token: str | None = ADMIN, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.web.answer(Request(method, target, given, raw))


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_value_is_registered_shown_listed_and_withdrawn(client: Client) -> None:
    assert client.ask("POST", V0 + "reference-value", sample({"a/b": [1], "rvps:///x": 2, "y z": 3})) == (200, None)
    assert client.ask("GET", V0 + "reference-value/a/b", token=None) == (200, [1])
    assert client.ask("GET", V0 + "reference-value/rvps:///x", token=None) == (200, 2)
    assert client.ask("GET", V0 + "reference-value/y%20z", token=None) == (200, 3)
    listed = client.ask("GET", LIST)[1]
    assert [(line["name"], line["valid"]) for line in listed] == [("a/b", True), ("rvps:///x", True), ("y z", True)]
    assert [line["name"] for line in client.ask("GET", LIST + "?prefix=rvps:")[1]] == ["rvps:///x"]
    assert [line["name"] for line in client.ask("GET", LIST + "?name=y+z")[1]] == ["y z"]
    assert client.ask("DELETE", LIST + "/a/b") == (200, None)
    assert client.ask("DELETE", LIST + "?name=rvps:///x") == (200, None)
    assert client.ask("DELETE", LIST + "/a/b")[0] == 404
    assert client.ask("GET", V0 + "reference-value/a/b", token=None)[0] == 404


def test_what_was_stored_is_told_to_who_prefers_that(client: Client) -> None:
    prefer = {"prefer": "return=representation"}
    status, lines = client.ask("POST", V0 + "reference-value", sample({"a": 1}), **prefer)
    assert status == 200
    assert [(line["name"], line["value"], line["replaced"]) for line in lines] == [("a", 1, None)]
    assert client.ask("POST", V0 + "reference-value", sample({"a": 2}), **prefer)[1][0]["replaced"] is not None


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/kbs/v1/reference-value/a", None, 404),
        ("GET", V0 + "resource/a/b/c", None, 404),
        ("GET", V0 + "admin", None, 404),
        ("GET", V0 + "admin/status", None, 404),
        ("PUT", V0 + "reference-value/a", None, 405),
        ("PATCH", LIST, None, 405),
        ("GET", LIST + "/none", None, 404),
        ("POST", LIST + "/none", None, 404),
        ("GET", V0 + "reference-value/none", None, 404),
        ("GET", V0 + "reference-value/%ff", None, 404),
        ("GET", V0 + "reference-value/" + "x" * 10_000, None, 404),
        ("DELETE", LIST, None, 404),
        ("GET", LIST + "/statements/none", None, 404),
        ("GET", LIST + "/messages/none", None, 404),
        ("POST", LIST + "/statements", None, 405),
        ("POST", LIST + "/statements/1/approve", None, 405),
        ("POST", LIST + "/statements/1/revoke", None, 422),
        ("POST", LIST + "/statements/1/revoke", {"reason": 7}, 422),
        ("POST", LIST + "/statements/1/revoke", {"reason": "x"}, 404),
        ("POST", LIST + "/statements/1/revoke", b"{", 422),
        ("GET", LIST + "/why?name=a&value={", None, 422),
        ("POST", LIST + "/dry-run", b"", 422),
        ("POST", LIST + "/submit", b"", 422),
        ("POST", LIST + "/submit", {"type": "sample", "payload": "e30="}, 422),
        ("POST", V0 + "reference-value", b"\xff", 422),
        ("POST", V0 + "reference-value", b"[" * 100_000, 422),
        ("POST", V0 + "reference-value", sample({"bad\n": 1}), 422),
        ("POST", V0 + "reference-value", {**sample({"a": 1}), "version": "2"}, 422),
    ],
)
def test_every_refusal_has_a_problem(client: Client, method: str, target: str, body: Any, status: int) -> None:
    answer = client.raw(method, target, body)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["type"].startswith("https://github.com/confidential-containers/kbs/errors/")
    assert problem["status"] == status
    assert problem["detail"]
    assert client.store.changes == 0


def test_strangers_bring_only_what_is_signed(client: Client) -> None:
    status, problem = client.ask("POST", V0 + "reference-value", sample({"a": 1}), token=None)
    assert (status, "--insecure-unsigned" in problem["detail"]) == (422, True)
    assert client.store.changes == 0
    unsafe = Client(insecure_unsigned=True)
    assert unsafe.ask("POST", V0 + "reference-value", sample({"a": 1}), token=None) == (200, None)
    assert unsafe.ask("GET", LIST)[1][0]["issuer"] == "unsigned"
    wrong = unsafe.ask("POST", V0 + "reference-value", sample({"a": 2}), token="x" * 43)
    assert wrong[0] == 401, "a wrong credential is an error, also where none is needed"


def test_a_dead_store_is_try_later_and_a_bug_says_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client.store.down = True
    for method, target in (
        ("GET", V0 + "reference-value/a"),
        ("GET", LIST),
        ("GET", "/readyz"),
        ("DELETE", LIST + "/a"),
    ):
        answer = client.raw(method, target)
        assert answer.status == 503
        assert ("Retry-After", "1") in answer.headers
    assert client.ask("GET", "/healthz") == (200, {"alive": True})
    client.store.down = False

    def bug(*_: object) -> Answer:
        raise KeyError("secret")

    monkeypatch.setattr(rest, "query", bug)
    with caplog.at_level(logging.CRITICAL):
        status, problem = client.ask("GET", V0 + "reference-value/a")
    assert (status, problem["detail"]) == (500, "internal error")


def test_a_snapshot_is_told_once(client: Client) -> None:
    client.ask("POST", V0 + "reference-value", sample({"a": "x" * 2000}))
    first = client.raw("GET", LIST + "/snapshot", token=BROKER)
    tag = dict(first.headers)["ETag"]
    document = json.loads(first.body)
    assert (document["format"], document["values"], document["sets"]) == (1, {"a": "x" * 2000}, {})
    packed = client.raw("GET", LIST + "/snapshot", accept_encoding="br, gzip")
    assert dict(packed.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == first.body
    for given in (tag, f'"other", {tag}'):
        again = client.raw("GET", LIST + "/snapshot", if_none_match=given)
        assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    client.ask("DELETE", LIST + "/a")
    assert client.raw("GET", LIST + "/snapshot", if_none_match=tag).status == 200


def test_a_value_that_only_lives_longer_is_news(client: Client) -> None:
    """Or brokers would go on believing that it ends when they first heard."""
    client.ask("POST", V0 + "reference-value", sample({"a": 1}, expiration="2026-11-21T10:00:05Z"))
    first = client.raw("GET", LIST + "/snapshot")
    client.ask("POST", V0 + "reference-value", sample({"a": 1}))
    client.at += 5 * SECOND
    again = client.raw("GET", LIST + "/snapshot", if_none_match=dict(first.headers)["ETag"])
    one, other = json.loads(first.body), json.loads(again.body)
    assert (one["version"], one["values"]) == (other["version"], other["values"])
    assert (one["valid_until"], other["valid_until"]) == ("2026-11-21T10:00:05Z", "2027-11-21T10:00:00Z")


def test_misses_and_requests_are_counted_but_health_checks_are_no_misses(client: Client) -> None:
    for name in ("none", "none", "__healthcheck__"):
        client.ask("GET", V0 + "reference-value/" + name, token=None)
    text = client.raw("GET", "/metrics").body.decode()
    assert "rvps_lookup_misses_total 2.0" in text
    assert 'rvps_requests_total{api="rest",method="GET",status="404"} 3.0' in text
    assert "rvps_insecure_switches 0.0" in text
    client.raw("BREW", "/")
    assert 'method="other"' in client.raw("GET", "/metrics").body.decode()


def test_tokens_and_values_are_not_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.ask("POST", V0 + "reference-value", sample({"name-in-log": "value-not-in-log"}))
    (record,) = [each for each in caplog.records if each.message == "changed"]
    assert record.__dict__["members"]["names"] == ["name-in-log"]
    assert record.__dict__["members"]["sender"].startswith("admin:local#")
    assert ADMIN not in str(record.__dict__)
    assert "value-not-in-log" not in str(record.__dict__)


def test_a_signed_statement_needs_no_token_and_a_revocation_ends_it() -> None:
    key = signing.new_key("ed25519")
    public = load_pem_public_key(key.public_pem)
    assert isinstance(public, Ed25519PublicKey)
    acme = Publisher("acme", frozenset({"dsse"}), ("acme/",), Trust(keys=(public,)))
    client = Client(publishers=gather([acme]))

    def signed(name: str, serial: int, by: signing.SigningKey = key) -> tuple[bytes, str]:
        text = signing.values_statement(ValueSet("guest", {name: ["1"]}), serial=serial, expires=AT + 60 * SECOND)
        return signing.message(signing.sign(text, by)), signing.digest_of(text)

    message, digest = signed("acme/kernel", 2)
    status, done = client.ask("POST", LIST + "/submit", message, token=None)
    assert (status, done["does"], done["status"]["state"], done["status"]["digest"]) == (
        200,
        "statement",
        "active",
        digest,
    )
    assert client.ask("GET", V0 + "reference-value/acme/kernel", token=None) == (200, ["1"])
    for refused in (
        signed("acme/kernel", 1),
        signed("else/kernel", 3),
        signed("acme/kernel", 3, signing.new_key("ed25519")),
    ):
        assert client.ask("POST", LIST + "/submit", refused[0], token=None)[0] == 422
        assert client.ask("POST", V0 + "reference-value", refused[0], token=None)[0] == 422
    assert client.ask("POST", V0 + "reference-value", signed("acme/kernel", 4)[0], token=None) == (200, None)
    raw = client.raw("GET", f"{LIST}/messages/{done['status']['steps'][0]['message']}")
    assert raw.content_type == "application/octet-stream"
    assert [each["state"] for each in client.ask("GET", LIST + "/statements")[1]] == ["active", "superseded"]
    assert len(client.ask("GET", LIST + "/statements?state=active")[1]) == 1
    newest = signed("acme/kernel", 4)[1]
    end = signing.message(signing.sign(signing.revocation_statement(newest, "stolen"), key))
    assert client.ask("POST", LIST + "/submit", end, token=None)[1]["does"] == "revocation"
    assert client.ask("GET", f"{LIST}/statements/{newest}")[1]["state"] == "revoked"
    snapshot = json.loads(client.raw("GET", LIST + "/snapshot", token=BROKER).body)
    assert "acme/kernel" not in snapshot["values"]
