"""A provider behind a network: fresh or nothing, whatever the other side does."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from rvps.errors import ProviderUnavailable, SettingsUnacceptable, StatementUnacceptable
from rvps.model import Snapshot
from rvps.remote.http import MAX_ANSWER, RemoteSettings
from rvps.remote.provider import RemoteProvider
from rvps.snapshots import delta as snapshot_delta
from rvps.snapshots import wire as snapshot_wire
from rvps.strict_json import encode
from tests.rvps.test_service import ALICE, AT, SECOND, sample

TOKEN = "t" * 43
SETTINGS = RemoteSettings(url="https://rvps.example:50004", token=TOKEN, poll_seconds=3600, max_age_seconds=10)
LINE = {
    "name": "svn",
    "value": ["1"],
    "issuer": ALICE,
    "statement": "1",
    "valid_from": "2026-11-21T10:00:00+00:00",
    "valid_until": "2027-11-21T10:00:00+00:00",
    "valid": True,
}
NEW = {snapshot_wire.NUMBER: "7"}
Reply = Callable[[httpx.Request], httpx.Response]


def snapshot_of(values: dict[str, Any], until: timedelta | None = None) -> Snapshot:
    encoded = encode(values)
    end = None if until is None else AT + until
    return Snapshot(sha256(encoded + str(end).encode()).hexdigest(), values, encoded, end)


def good(snapshot: Snapshot, number: int = 7) -> Reply:
    """What an honest service answers."""
    body = snapshot_wire.write(snapshot)
    tag = f'"{sha256(body).hexdigest()}"'

    def reply(request: httpx.Request) -> httpx.Response:
        if request.headers.get("If-None-Match") == tag:
            return httpx.Response(304, headers={"ETag": tag, snapshot_wire.NUMBER: str(number)})
        packed = {"ETag": tag, "Content-Encoding": "gzip", snapshot_wire.NUMBER: str(number)}
        return httpx.Response(200, headers=packed, stream=httpx.ByteStream(gzip.compress(body)))

    return reply


class Script:
    """Answers with `reply`, and keeps the requests."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[httpx.Request] = []
        self.seconds = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        found = self.reply(request)
        if not found.is_stream_consumed:
            return found
        # as from the network: not read yet
        return httpx.Response(found.status_code, headers=found.headers, stream=httpx.ByteStream(found.content))

    def ticks(self) -> float:
        return self.seconds


@pytest.fixture
def script() -> Script:
    return Script(good(snapshot_of({"svn": ["1"]})))


@pytest.fixture
def provider(script: Script) -> Iterator[RemoteProvider]:
    made = RemoteProvider(SETTINGS, transport=httpx.MockTransport(script), ticks=script.ticks)
    yield made
    made.close()


def poll(provider: RemoteProvider) -> None:
    """One more round, now."""
    provider._see_change()


def test_values_are_there_and_cost_no_call(provider: RemoteProvider, script: Script) -> None:
    first = provider.snapshot(AT)
    assert dict(first.values) == {"svn": ["1"]}
    assert (first.encoded, first.encoded_sets, first.valid_until) == (b'{"svn":["1"]}', b"{}", None)
    assert all(provider.snapshot(AT + n * SECOND) is first for n in range(20))
    assert provider.query("svn", AT) == ["1"]
    assert provider.query("none", AT) is None
    assert len(script.requests) == 1
    request = script.requests[0]
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert str(request.url) == "https://rvps.example:50004/kbs/v0/admin/reference-values/snapshot"


def test_nothing_changed_keeps_the_same_object(provider: RemoteProvider, script: Script) -> None:
    first = provider.snapshot(AT)
    poll(provider)
    assert provider.snapshot(AT) is first
    assert "If-None-Match" in script.requests[-1].headers
    script.reply = good(snapshot_of({}))
    poll(provider)
    assert dict(provider.snapshot(AT).values) == {}


def test_what_nobody_confirms_any_more_is_not_used(provider: RemoteProvider, script: Script) -> None:
    provider.snapshot(AT)
    script.reply = lambda _: httpx.Response(500)
    poll(provider)
    script.seconds = 10
    assert provider.query("svn", AT) == ["1"]
    script.seconds = 10.1
    with pytest.raises(ProviderUnavailable, match="10 s old: it answered 500"):
        provider.snapshot(AT)
    with pytest.raises(ProviderUnavailable):
        provider.query("svn", AT)
    script.reply = good(snapshot_of({"svn": ["1"]}))
    poll(provider)
    assert provider.query("svn", AT) == ["1"]


def test_age_counts_from_the_question_not_from_the_answer(provider: RemoteProvider, script: Script) -> None:
    honest = good(snapshot_of({"svn": ["1"]}))

    def slow(request: httpx.Request) -> httpx.Response:
        script.seconds += 9
        return honest(request)

    script.reply = slow
    provider.snapshot(AT)
    script.seconds += 1.5
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT)


def test_a_snapshot_ends_with_its_first_value(provider: RemoteProvider, script: Script) -> None:
    script.reply = good(snapshot_of({"svn": ["1"]}, 5 * SECOND))
    assert provider.query("svn", AT + 4 * SECOND) == ["1"]
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT + 5 * SECOND)
    asked = len(script.requests)
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT + 6 * SECOND)
    assert len(script.requests) == asked, "only one caller waits for what comes after it"
    script.reply = good(snapshot_of({}))
    poll(provider)
    assert provider.query("svn", AT + 5 * SECOND) is None


def test_at_the_end_of_a_value_the_next_snapshot_is_asked_for_at_once(provider: RemoteProvider, script: Script) -> None:
    script.reply = good(snapshot_of({"a": 1, "b": 1}, 5 * SECOND))
    provider.snapshot(AT)
    script.reply = good(snapshot_of({"a": 1}))
    assert dict(provider.snapshot(AT + 5 * SECOND).values) == {"a": 1}


def _answer(body: bytes, **headers: str) -> Reply:
    tag = f'"{sha256(body).hexdigest()}"'
    whole = {"ETag": tag, snapshot_wire.NUMBER: "7", **headers}
    return lambda _: httpx.Response(200, headers=whole, stream=httpx.ByteStream(body))


def _wire(**members: Any) -> bytes:
    whole = {"format": 1, "version": "0" * 64, "valid_until": None, "values": {}, "sets": {}, **members}
    return json.dumps({name: value for name, value in whole.items() if value != "absent"}).encode()


def _broken(_: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def _late(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("read timed out")


def _untrusted(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("certificate verify failed")


FAULTS: dict[str, Reply] = {
    "500": lambda _: httpx.Response(500),
    "401": lambda _: httpx.Response(401),
    "redirect": lambda _: httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
    "304 of nothing": lambda _: httpx.Response(304, headers=NEW),
    "connection lost": _broken,
    "too slow": _late,
    "wrong certificate": _untrusted,
    "not JSON": _answer(b"<html>"),
    "a list": _answer(b"[]"),
    "cut off": _answer(_wire(values={"svn": ["1"]})[:-5]),
    "member missing": _answer(_wire(sets="absent")),
    "member too many": _answer(_wire(more=1)),
    "other format": _answer(_wire(format=2)),
    "format true": _answer(_wire(format=True)),
    "values a list": _answer(_wire(values=[])),
    "sets a list": _answer(_wire(sets=[])),
    "version missing": _answer(_wire(version=None)),
    "version a word": _answer(_wire(version="newest")),
    "until a word": _answer(_wire(valid_until="soon")),
    "until a number": _answer(_wire(valid_until=7)),
    "repeated member": _answer(
        b'{"format":1,"version":"%s","valid_until":null,"values":{},"values":{},"sets":{}}' % (b"0" * 64)
    ),
    "no ETag": lambda _: httpx.Response(200, headers=NEW, content=_wire()),
    "ETag of another": lambda _: httpx.Response(200, headers={"ETag": '"1"', **NEW}, content=_wire()),
    "no number": lambda _: httpx.Response(200, headers={"ETag": f'"{sha256(_wire()).hexdigest()}"'}, content=_wire()),
    "number below none": _answer(_wire(), **{snapshot_wire.NUMBER: "-1"}),
    "number of other digits": _answer(_wire(), **{snapshot_wire.NUMBER: "7e9"}),
    "number of many digits": _answer(_wire(), **{snapshot_wire.NUMBER: "9" * 5000}),
    "not gzip": _answer(_wire(), **{"Content-Encoding": "gzip"}),
    "half a gzip": _answer(gzip.compress(_wire())[:-12], **{"Content-Encoding": "gzip"}),
    "other encoding": _answer(_wire(), **{"Content-Encoding": "br"}),
    "gzip bomb": _answer(gzip.compress(b" " * (MAX_ANSWER + 1), 1), **{"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_no_answer(provider: RemoteProvider, script: Script, fault: str) -> None:
    script.reply = FAULTS[fault]
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT)
    script.reply = good(snapshot_of({"svn": ["1"]}))
    poll(provider)
    assert provider.query("svn", AT) == ["1"], "and the next good answer is taken"
    script.reply = FAULTS[fault]
    script.seconds = 11
    if fault != "304 of nothing":  # by then it is one of something
        poll(provider)
        with pytest.raises(ProviderUnavailable):
            provider.snapshot(AT)


def test_two_snapshots_of_one_version_are_a_lie(provider: RemoteProvider, script: Script) -> None:
    script.reply = _answer(_wire(values={"svn": ["1"]}))
    provider.snapshot(AT)
    script.reply = _answer(_wire(values={"svn": ["2"]}))
    poll(provider)
    script.seconds = 11
    with pytest.raises(ProviderUnavailable, match="two snapshots of one version"):
        provider.snapshot(AT)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("gzip bomb", "more than"),
        ("half a gzip", "cut off"),
        ("other encoding", "encoding"),
        ("ETag of another", "ETag"),
        ("304 of nothing", "nothing changed"),
        ("no number", "how new"),
        ("repeated member", "repeated"),
    ],
)
def test_the_log_says_which_fault_it_was(provider: RemoteProvider, script: Script, fault: str, said: str) -> None:
    script.reply = FAULTS[fault]
    with pytest.raises(ProviderUnavailable, match=said):
        provider.snapshot(AT)


def test_what_went_back_is_not_used_although_it_is_newer_on_the_wire(provider: RemoteProvider, script: Script) -> None:
    """A service whose store was set back, or somebody who sends what he recorded: a revoked value would be
    valid again."""
    old, new = snapshot_of({"svn": ["1"]}), snapshot_of({})
    script.reply = good(old, 41)
    assert provider.query("svn", AT) == ["1"]
    script.reply = good(new, 42)
    poll(provider)
    assert provider.query("svn", AT) is None
    for reply in (good(old, 41), good(new, 41)):  # as a whole, and as "nothing changed"
        script.reply = reply
        script.seconds += 9
        poll(provider)
        assert provider.query("svn", AT) is None
        script.seconds += 9
        poll(provider)
        with pytest.raises(ProviderUnavailable, match="went back from event 42 to 41"):
            provider.snapshot(AT)
        script.reply = good(new, 42)
        poll(provider)
        assert provider.query("svn", AT) is None
    fresh = RemoteProvider(SETTINGS, transport=httpx.MockTransport(script), ticks=script.ticks)
    script.reply = good(old, 41)
    assert fresh.query("svn", AT) == ["1"]  # accepted by a restart
    fresh.close()


def test_nothing_changed_in_what_another_has_confirms_nothing(provider: RemoteProvider, script: Script) -> None:
    provider.snapshot(AT)
    script.reply = lambda _: httpx.Response(304, headers={"ETag": '"another"', **NEW})
    script.seconds = 11
    poll(provider)
    with pytest.raises(ProviderUnavailable, match="what we do not have"):
        provider.snapshot(AT)


def test_an_answer_that_drips_is_given_up(script: Script) -> None:
    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(10_000):
                script.seconds += 1
                yield b" "

    script.reply = lambda _: httpx.Response(200, headers=NEW, stream=Drip())
    provider = RemoteProvider(SETTINGS, transport=httpx.MockTransport(script), ticks=script.ticks)
    with pytest.raises(ProviderUnavailable, match="takes too long"):
        provider.snapshot(AT)
    assert script.seconds < 20
    provider.close()


def _admin(script: Script, reply: Reply) -> None:
    honest = script.reply

    def choose(request: httpx.Request) -> httpx.Response:
        return honest(request) if request.url.path.endswith("/snapshot") else reply(request)

    script.reply = choose


def test_a_registration_goes_on_in_the_administrators_name(provider: RemoteProvider, script: Script) -> None:
    _admin(script, lambda _: httpx.Response(200, json=[LINE]))
    (value,) = provider.register(sample({"svn": ["1"]}), issuer="admin:jürgen#1", at=AT)
    assert (value.name, value.value, value.issuer) == ("svn", ["1"], ALICE)
    sent = next(request for request in script.requests if request.method == "POST")
    assert sent.headers["RVPS-On-Behalf-Of"] == "admin:j%C3%BCrgen%231"
    assert json.loads(sent.content) == sample({"svn": ["1"]})


def test_what_one_changed_oneself_is_seen_on_return(provider: RemoteProvider, script: Script) -> None:
    provider.snapshot(AT)

    def register(_: httpx.Request) -> httpx.Response:
        _admin_reply = httpx.Response(200, json=[LINE])
        script.reply = good(snapshot_of({"svn": ["2"]}))
        return _admin_reply

    _admin(script, register)
    provider.register(sample({"svn": ["2"]}), issuer=ALICE, at=AT)
    assert provider.query("svn", AT) == ["2"]


def test_withdrawing_and_listing_go_on(provider: RemoteProvider, script: Script) -> None:
    _admin(script, lambda _: httpx.Response(200, json=[LINE]))
    assert provider.withdraw("rvps:///a b", issuer=ALICE, at=AT) is True
    sent = next(request for request in script.requests if request.method == "DELETE")
    assert sent.url.raw_path == b"/kbs/v0/admin/reference-values?name=rvps%3A%2F%2F%2Fa+b"
    assert [value.name for value in provider.list(AT)] == ["svn"]
    _admin(script, lambda _: httpx.Response(404))
    assert provider.withdraw("none", issuer=ALICE, at=AT) is False


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_providers_refusal_is_passed_on(provider: RemoteProvider, script: Script, status: int) -> None:
    _admin(script, lambda _: httpx.Response(status, json={"detail": "sample payload: not JSON"}))
    with pytest.raises(StatementUnacceptable, match="sample payload: not JSON"):
        provider.register(sample({}), issuer=ALICE, at=AT)


@pytest.mark.parametrize(
    "body", [b"", b'{"a":1}', b"[1]", b'[{"name":1}]', json.dumps([{**LINE, "valid_until": "x"}]).encode()]
)
def test_an_unreadable_answer_to_an_administrator_is_an_error(
    provider: RemoteProvider, script: Script, body: bytes
) -> None:
    _admin(script, lambda _: httpx.Response(200, content=body))
    with pytest.raises(ProviderUnavailable):
        provider.list(AT)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_every_other_answer_is_try_later(provider: RemoteProvider, script: Script, status: int) -> None:
    _admin(script, lambda _: httpx.Response(status))
    with pytest.raises(ProviderUnavailable):
        provider.register(sample({}), issuer=ALICE, at=AT)
    with pytest.raises(ProviderUnavailable):
        provider.withdraw("a", issuer=ALICE, at=AT)
    with pytest.raises(ProviderUnavailable):
        provider.list(AT)


@pytest.mark.parametrize("token", ["", "short", "t" * 20_000, "two words " * 5, "ü" * 43, "line\n" * 9])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsUnacceptable) as caught:
        RemoteProvider(RemoteSettings(url="https://a", token=token))
    assert len(token) < 4 or token not in str(caught.value)
    assert TOKEN not in repr(SETTINGS)


def test_roots_that_do_not_load_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(SettingsUnacceptable, match=name):
            RemoteProvider(RemoteSettings(url="https://a", token=TOKEN, ca_file=tmp_path / name))


def test_no_thread_before_the_first_use(script: Script) -> None:
    before = threading.active_count()
    provider = RemoteProvider(SETTINGS, transport=httpx.MockTransport(script))
    assert threading.active_count() == before
    provider.close()
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT)


def test_only_what_changed_is_fetched(provider: RemoteProvider, script: Script) -> None:
    old, new = snapshot_of({"svn": ["1"]}), snapshot_of({"svn": ["2"]})
    assert provider.snapshot(AT).encoded == old.encoded
    script.reply = changed(old, new)
    poll(provider)
    assert provider.snapshot(AT).encoded == new.encoded
    asked = [request.headers.get("A-IM") for request in script.requests]
    assert asked[0] is None
    assert set(asked[1:]) == {snapshot_delta.MANIPULATION}


def test_a_delta_that_leads_elsewhere_is_followed_by_the_whole(provider: RemoteProvider, script: Script) -> None:
    old, new = snapshot_of({"svn": ["1"]}), snapshot_of({"svn": ["2"]})
    provider.snapshot(AT)
    wrong = changed(old, new, body=snapshot_delta.write(old, snapshot_of({"svn": ["3"]})))
    answered: list[int] = []

    def reply(request: httpx.Request) -> httpx.Response:
        found = (wrong if "A-IM" in request.headers and not answered else good(new))(request)
        answered.append(found.status_code)
        return found

    script.reply = reply
    poll(provider)
    assert provider.snapshot(AT).encoded == new.encoded
    assert answered[:2] == [226, 200]


@pytest.mark.parametrize("headers", [{}, {"IM": "gzip"}], ids=["none", "another"])
def test_a_change_of_another_kind_is_refused(provider: RemoteProvider, script: Script, headers: dict[str, str]) -> None:
    old, new = snapshot_of({"svn": ["1"]}), snapshot_of({"svn": ["2"]})
    provider.snapshot(AT)
    script.reply = changed(old, new, headers=headers)
    poll(provider)
    assert provider.snapshot(AT).encoded == old.encoded  # until it is too old
    script.seconds += 11
    with pytest.raises(ProviderUnavailable, match="not asked for"):
        provider.snapshot(AT)


def test_a_delta_to_the_same_version_with_other_values_is_refused(provider: RemoteProvider, script: Script) -> None:
    old = snapshot_of({"svn": ["1"]})
    provider.snapshot(AT)
    script.reply = changed(old, replace(snapshot_of({"svn": ["2"]}), version=old.version))
    poll(provider)
    assert provider.snapshot(AT).encoded == old.encoded


def changed(old: Snapshot, new: Snapshot, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
    """What a service answers that still knows the older snapshot."""

    def reply(request: httpx.Request) -> httpx.Response:
        tag = snapshot_wire.tag_of(snapshot_wire.write(new))
        if request.headers.get("If-None-Match") == tag:
            return httpx.Response(304, headers={"ETag": tag, **NEW})
        named = {"IM": snapshot_delta.MANIPULATION} if headers is None else headers
        delta = snapshot_delta.write(old, new) if body is None else body
        return httpx.Response(226, headers={"ETag": tag, **NEW, **named}, stream=httpx.ByteStream(delta))

    return reply
