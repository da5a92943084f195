"""An administrator's requests, byte for byte, and what becomes of the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from kbs.client.admin import AdminClient
from kbs.client.errors import (
    AdminRefused,
    ClientError,
    ClientMisconfigured,
    Conflict,
    NotFound,
    Unacceptable,
    UnexpectedAnswer,
    VersionsUnknown,
)
from tests.kbs.client.fake_broker import BASE, problem

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
ENTRY = {"name": "a/b/c", "version": 3, "author": "alice", "size": "12"}
VALUE = {
    "name": "svn",
    "value": ["1"],
    "issuer": "admin:alice#1",
    "statement": "0000000000000001",
    "valid_from": "2026-11-21T10:00:00+00:00",
    "valid_until": "2027-11-21T10:00:00+00:00",
    "valid": True,
}


class Recorder:
    """Keeps requests and gives one answer."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.answer = answer or httpx.Response(200)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer

    @property
    def line(self) -> str:
        assert len(self.requests) == 1
        request = self.requests[0]
        return f"{request.method} {request.url.raw_path.decode()}"

    @property
    def body(self) -> Any:
        return json.loads(self.requests[0].content)

    def client(self, **members: Any) -> AdminClient:
        return AdminClient(BASE, transport=httpx.MockTransport(self), **{"token": TOKEN, **members})


class Versioned(Recorder):
    """Tells the versions of resources beside."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "GET":
            return httpx.Response(200, json={"path": "a/b/c", "version": 3, "versions": [ENTRY]})
        return self.answer


def not_found(name: str) -> Recorder:
    kind = f"https://github.com/confidential-containers/kbs/errors/{name}"
    return Recorder(httpx.Response(404, json={"type": kind, "detail": "not here"}))


def answering(document: Any, **headers: str) -> Recorder:
    return Recorder(httpx.Response(200, json=document, headers=headers))


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_every_request_carries_the_token_and_the_fields_user_agent() -> None:
    recorder = Recorder()
    recorder.client().set_resource("a/b/c", b"x")
    assert recorder.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert recorder.requests[0].headers["User-Agent"] == "kbs-client/0.1.0"


def test_without_a_token_nothing_is_claimed() -> None:
    recorder = Recorder()
    recorder.client(token=None).set_resource("a/b/c", b"x")
    assert "Authorization" not in recorder.requests[0].headers


def test_upstreams_requests_are_upstreams() -> None:
    recorder = Recorder()
    recorder.client().set_resource("a/b/c", b"\x00\xff")
    assert recorder.line == "POST /kbs/v0/resource/a/b/c"
    assert recorder.requests[0].content == b"\x00\xff"
    assert recorder.requests[0].headers["Content-Type"] == "application/octet-stream"

    recorder = Recorder()
    recorder.client().delete_resource("a/b/c")
    assert recorder.line == "DELETE /kbs/v0/resource/a/b/c"

    recorder = Recorder()
    recorder.client().set_resource_policy("package policy\n# größe")
    assert recorder.line == "POST /kbs/v0/resource-policy"
    assert recorder.body.keys() == {"policy"}
    assert "=" not in recorder.body["policy"]
    assert unb64url(recorder.body["policy"]) == "package policy\n# größe".encode()

    recorder = Recorder()
    recorder.client().set_attestation_policy("default_cpu", b"package policy", reason="because")
    assert recorder.line == "POST /kbs/v0/attestation-policy"
    assert recorder.body["type"] == "rego"
    assert recorder.body["policy_id"] == "default_cpu"
    assert recorder.body["reason"] == "because"
    assert unb64url(recorder.body["policy"]) == b"package policy"

    recorder = answering(["resource-policy"])
    assert recorder.client().resource_policy_ids() == ("resource-policy",)
    assert recorder.line == "GET /kbs/v0/resource-policy"

    recorder = answering(["1"])
    assert recorder.client().reference_value("tdx/mr_td") == ["1"]
    assert recorder.line == "GET /kbs/v0/reference-value/tdx/mr_td"


def test_reference_values_travel_as_a_sample_message() -> None:
    recorder = Recorder()
    recorder.client().set_reference_values({"svn": ["1"], "n": 4})
    assert recorder.line == "POST /kbs/v0/reference-value"
    payload = recorder.body.pop("payload")
    assert json.loads(recorder.requests[0].content) == {"version": "0.1.0", "type": "sample", "payload": payload}
    assert json.loads(base64.b64decode(payload, validate=True)) == {"svn": ["1"], "n": 4}


def test_an_expiration_is_written_in_utc_and_whole_seconds() -> None:
    recorder = Recorder()
    moment = datetime(2027, 1, 1, 1, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=1)))
    recorder.client().set_reference_values({"svn": ["1"]}, expires=moment)
    assert recorder.body["expiration"] == "2027-01-01T00:00:00Z"


def test_messages_of_other_types_are_sent_as_they_are() -> None:
    recorder = Recorder()
    message = {"version": "0.1.0", "type": "corim", "payload": "2QH1"}
    recorder.client().register_reference_values(message)
    assert recorder.body == message


@pytest.mark.parametrize(
    ("expected", "header", "value"),
    [(3, "If-Match", '"3"'), (0, "If-None-Match", "*"), (None, None, None)],
)
def test_compare_and_set(expected: int | None, header: str | None, value: str | None) -> None:
    calls: list[Callable[[AdminClient], object]] = [
        lambda admin: admin.set_resource("a/b/c", b"", expected=expected),
        lambda admin: admin.delete_resource("a/b/c", expected=expected),
        lambda admin: admin.set_resource_policy("", expected=expected),
        lambda admin: admin.set_attestation_policy("p", "", expected=expected),
    ]
    for call in calls:
        recorder = Versioned()
        call(recorder.client())
        found = {name: recorder.requests[-1].headers.get(name) for name in ("If-Match", "If-None-Match")}
        assert found == {"If-Match": None, "If-None-Match": None} | ({header: value} if header else {})


@pytest.mark.parametrize("expected", [0, 3])
def test_a_condition_is_not_sent_to_a_broker_that_would_ignore_it(expected: int) -> None:
    """Trustee has no versions and takes any upload: 404 `PluginNotFound` for their list (kbs-protocol 1.5)."""
    calls: list[Callable[[AdminClient], object]] = [
        lambda admin: admin.set_resource("a/b/c", b"x", expected=expected),
        lambda admin: admin.delete_resource("a/b/c", expected=expected),
    ]
    answers = (("PluginNotFound", VersionsUnknown), ("RouteNotFound", VersionsUnknown))
    for call in calls:
        for name, error in answers:
            recorder = not_found(name)
            with pytest.raises(error, match="nothing was written"):
                call(recorder.client())
            assert [each.method for each in recorder.requests] == ["GET"]
        for answer in (httpx.Response(404, text="not a problem"), httpx.Response(200, json=[]), httpx.Response(401)):
            recorder = Recorder(answer)
            with pytest.raises(ClientError):
                call(recorder.client())
            assert [each.method for each in recorder.requests] == ["GET"]


def test_the_current_version_of_a_resource() -> None:
    found = Versioned().client().current_resource("a/b/c")
    assert found is not None
    assert found.version == 3
    assert not_found("ResourceNotFound").client().current_resource("a/b/c") is None


@pytest.mark.parametrize(("etag", "version"), [('"7"', 7), (None, None), ("7", None), ('W/"7"', None), ('"x"', None)])
def test_the_new_version_is_the_etag(etag: str | None, version: int | None) -> None:
    headers = {"ETag": etag} if etag else {}
    assert Recorder(httpx.Response(200, headers=headers)).client().set_resource("a/b/c", b"") == version


def test_resources() -> None:
    recorder = answering([ENTRY])
    (found,) = recorder.client().resources("a/b & c")
    assert recorder.line == "GET /kbs/v0/admin/resources?prefix=a%2Fb%20%26%20c"
    assert (found.name, found.version, found.meta) == ("a/b/c", 3, {"author": "alice", "size": "12"})

    recorder = answering([])
    assert recorder.client().resources() == ()
    assert recorder.line == "GET /kbs/v0/admin/resources"

    recorder = answering({"path": "a/b/c", "version": 3, "versions": [{**ENTRY, "version": 2}, ENTRY]})
    versions = recorder.client().resource_versions("a/b/c")
    assert recorder.line == "GET /kbs/v0/admin/resources/a/b/c"
    assert (versions.path, versions.version, [each.version for each in versions.versions]) == ("a/b/c", 3, [2, 3])

    recorder = answering({"version": 4}, ETag='"4"')
    assert recorder.client().rollback_resource("a/b/c", 2) == 4
    assert (recorder.line, recorder.body) == ("POST /kbs/v0/admin/resources/a/b/c/rollback", {"version": 2})


def test_policies() -> None:
    recorder = answering(
        [{"kind": "evidence", "id": "default_cpu", "version": 2}, {"kind": "resource", "policy_id": "r"}]
    )
    found = recorder.client().policies()
    assert recorder.line == "GET /kbs/v0/admin/policies"
    assert [(each.kind, each.policy_id) for each in found] == [("evidence", "default_cpu"), ("resource", "r")]
    assert found[0].members["version"] == 2

    document = {"kind": "evidence", "id": "default_cpu", "digest": "ab", "origin": "uploaded", "text": "package policy"}
    recorder = answering({**document, "history": [{"name": "default_cpu", "version": 1}]})
    policy = recorder.client().policy("evidence", "default_cpu")
    assert recorder.line == "GET /kbs/v0/admin/policies/evidence/default_cpu"
    assert (policy.text, policy.digest, [each.version for each in policy.history]) == ("package policy", "ab", [1])

    recorder = Recorder(httpx.Response(200, headers={"ETag": '"9"'}))
    assert recorder.client().rollback_policy("resource", "resource-policy", 1) == 9
    assert recorder.line == "POST /kbs/v0/admin/policies/resource/resource-policy/rollback"
    with pytest.raises(UnexpectedAnswer, match="no version"):
        Recorder().client().rollback_policy("resource", "resource-policy", 1)


def test_reference_values_are_listed_with_their_dates() -> None:
    recorder = answering([VALUE])
    (found,) = recorder.client().reference_values()
    assert recorder.line == "GET /kbs/v0/admin/reference-values"
    assert (found.name, found.value, found.issuer, found.valid) == ("svn", ["1"], "admin:alice#1", True)
    assert found.valid_until == datetime(2027, 11, 21, 10, tzinfo=UTC)


def test_withdrawing() -> None:
    recorder = Recorder()
    recorder.client().withdraw_reference_value("tdx/mr_td:1.0")
    assert recorder.line == "DELETE /kbs/v0/admin/reference-values/tdx/mr_td:1.0"


@pytest.mark.parametrize(
    "name", ["rvps:///github.com/x/mr_td:1.0", "ACME Ltd/x", "größe", "a%2Fb", "a/", "/a", "a?b#c", ""]
)
def test_names_that_fit_no_path_travel_in_the_query(name: str) -> None:
    recorder = Recorder()
    recorder.client().withdraw_reference_value(name)
    assert recorder.requests[0].url.path == "/kbs/v0/admin/reference-values"
    assert dict(recorder.requests[0].url.params) == {"name": name}

    listed = [
        {**VALUE, "name": "other"},
        {**VALUE, "name": name, "valid": False, "value": "old"},
        {**VALUE, "name": name},
    ]
    recorder = answering(listed)
    assert recorder.client().reference_value(name) == ["1"]
    assert dict(recorder.requests[0].url.params) == {"name": name}
    with pytest.raises(NotFound):
        answering(listed[:2]).client().reference_value(name)


def test_warnings_are_handed_on() -> None:
    answer = httpx.Response(200, headers=[("Kbs-Warning", "one"), ("Kbs-Warning", "two, and more"), ("ETag", '"3"')])
    heard: list[str] = []
    assert Recorder(answer).client(on_warning=heard.append).set_resource_policy("package policy") == 3
    assert heard == ["one", "two, and more"]
    assert Recorder(answer).client().set_resource_policy("package policy") == 3


def test_tokens() -> None:
    recorder = answering({"token": TOKEN, "id": "t1", "expires": "2026-11-22T10:00:00+00:00"})
    issued = recorder.client().issue_token("bob", "reader", lifetime=timedelta(hours=1))
    assert recorder.line == "POST /kbs/v0/admin/tokens"
    assert recorder.body == {"subject": "bob", "role": "reader", "lifetime_seconds": 3600}
    assert (issued.token, issued.token_id) == (TOKEN, "t1")
    assert TOKEN not in repr(issued)

    recorder = Recorder()
    recorder.client().revoke_token("t1")
    assert recorder.line == "DELETE /kbs/v0/admin/tokens/t1"
    for token_id in ("a/b", "..", "of somebody"):
        recorder = Recorder()
        recorder.client().revoke_token(token_id)
        assert recorder.requests[0].url.path == "/kbs/v0/admin/tokens"
        assert dict(recorder.requests[0].url.params) == {"id": token_id}


def test_decisions_and_status() -> None:
    recorder = answering({"decision": "ab", "outcome": "denied"})
    assert recorder.client().decision("ab")["outcome"] == "denied"
    assert recorder.line == "GET /kbs/v0/admin/decisions/ab"
    recorder = answering({"version": "0.1.0"})
    assert recorder.client().status() == {"version": "0.1.0"}
    assert recorder.line == "GET /kbs/v0/admin/status"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(401, "AdminAuthAccess"), AdminRefused),
        (problem(403, "AdminAuthAccess"), AdminRefused),
        (problem(404, "ResourceNotFound"), NotFound),
        (problem(412, "VersionConflict"), Conflict),
        (problem(422, "PolicyEngineError"), Unacceptable),
        (httpx.Response(201), UnexpectedAnswer),
        (httpx.Response(204), UnexpectedAnswer),
    ],
)
def test_whatever_is_not_200_is_an_error(answer: httpx.Response, error: type[Exception]) -> None:
    calls: list[Callable[[AdminClient], object]] = [
        lambda admin: admin.set_resource("a/b/c", b""),
        lambda admin: admin.delete_resource("a/b/c"),
        lambda admin: admin.resources(),
        lambda admin: admin.resource_versions("a/b/c"),
        lambda admin: admin.rollback_resource("a/b/c", 1),
        lambda admin: admin.set_resource_policy(""),
        lambda admin: admin.set_attestation_policy("p", ""),
        lambda admin: admin.resource_policy_ids(),
        lambda admin: admin.policies(),
        lambda admin: admin.policy("evidence", "p"),
        lambda admin: admin.rollback_policy("evidence", "p", 1),
        lambda admin: admin.register_reference_values({}),
        lambda admin: admin.set_reference_values({}),
        lambda admin: admin.reference_value("a"),
        lambda admin: admin.reference_value("a b"),
        lambda admin: admin.reference_values(),
        lambda admin: admin.withdraw_reference_value("a"),
        lambda admin: admin.issue_token("a", "b"),
        lambda admin: admin.revoke_token("a"),
        lambda admin: admin.decision("a"),
        lambda admin: admin.status(),
    ]
    for call in calls:
        with pytest.raises(error):
            call(Recorder(answer).client())


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        [1],
        [{}],
        [{**ENTRY, "version": "3"}],
        [{**ENTRY, "version": True}],
        [{**VALUE, "version": 1, "name": 7}],
    ],
)
def test_answers_of_another_shape_are_refused(document: Any) -> None:
    with pytest.raises(UnexpectedAnswer):
        answering(document).client().resources()


@pytest.mark.parametrize(
    "change",
    [{"valid": 1}, {"valid_until": "soon"}, {"valid_until": "2027-11-21T10:00:00"}, {"issuer": None}, {"name": 1}],
)
def test_reference_values_of_another_shape_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer):
        answering([{**VALUE, **change}]).client().reference_values()
    with pytest.raises(UnexpectedAnswer):
        answering([{name: VALUE[name] for name in VALUE if name != "value"}]).client().reference_values()


def test_more_answers_of_another_shape() -> None:
    for call in (
        lambda: answering([1]).client().status(),
        lambda: answering([1]).client().resource_policy_ids(),
        lambda: answering("text").client().policies(),
        lambda: answering({}).client().policy("evidence", "p"),
        lambda: answering({"path": "a", "version": 1, "versions": {}}).client().resource_versions("a/b/c"),
        lambda: answering({"token": "t", "id": 1, "expires": "x"}).client().issue_token("a", "b"),
        lambda: Recorder(httpx.Response(200, content=b"{")).client().status(),
    ):
        with pytest.raises(UnexpectedAnswer):
            call()


@pytest.mark.parametrize("path", ["", "a//b", "a/../b", "a b", "a%2Fb", "a?b", "a#b", "ä"])
def test_paths_with_two_spellings_are_not_sent(path: str) -> None:
    recorder = Recorder()
    client = recorder.client()
    with pytest.raises(ClientMisconfigured):
        client.set_resource(path, b"")
    for call in (client.delete_resource, client.resource_versions, client.decision):
        with pytest.raises(ClientMisconfigured):
            call(path)
    with pytest.raises(ClientMisconfigured):
        client.revoke_token("")
    assert recorder.requests == []


def test_a_token_file_is_read_and_trimmed(tmp_path: Path) -> None:
    file = tmp_path / "admin-token"
    file.write_text(f"\n{TOKEN} \n")
    recorder = Recorder()
    recorder.client(token=None, token_file=file).set_resource("a/b/c", b"")
    assert recorder.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff", b"x" * 20_000, b"a\x00"])
def test_other_token_files_are_refused_without_showing_them(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "admin-token"
    file.write_bytes(content)
    with pytest.raises(ClientMisconfigured) as refused:
        Recorder().client(token=None, token_file=file)
    assert "words" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_missing_token_file_and_two_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientMisconfigured, match="no readable token file"):
        Recorder().client(token=None, token_file=tmp_path / "none")
    with pytest.raises(ClientMisconfigured, match="not both"):
        Recorder().client(token_file=tmp_path / "none")


@pytest.mark.parametrize("url", ["http://broker.test", "http://10.0.0.1:8080", "http://localhost.evil.test"])
def test_a_token_does_not_leave_this_machine_in_the_clear(url: str) -> None:
    transport = httpx.MockTransport(Recorder())
    with pytest.raises(ClientMisconfigured, match="plain HTTP"):
        AdminClient(url, token=TOKEN, transport=transport)
    AdminClient(url, transport=transport)
    AdminClient(url, token=TOKEN, insecure_http=True, transport=transport)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://broker.test"])
def test_loopback_and_tls_take_a_token(url: str) -> None:
    AdminClient(url, token=TOKEN, transport=httpx.MockTransport(Recorder()))


def test_the_token_is_in_no_repr() -> None:
    client = Recorder().client()
    assert TOKEN not in repr(client)
    assert TOKEN not in repr(vars(client))
