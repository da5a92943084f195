"""Bodies: how large, how framed, how encoded (KBS protocol 1.1 and 1.6; threat-model P-DOS-1)."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest

from kbs.errors import MalformedMessage
from kbs.web.body import check_declared
from tests.fakes.broker import Answer, BrokerUnderTest, session
from tests.protocol.expect import expect

ATTEST, RESOURCE, OTHER = 8 << 20, 2 << 20, 1 << 20


def attest(broker: BrokerUnderTest, body: bytes, **more: Any) -> Answer:
    return broker.call("POST", "/kbs/v0/attest", body=body, **more)


def auth(broker: BrokerUnderTest, body: bytes, **more: Any) -> Answer:
    return broker.call("POST", "/kbs/v0/auth", body=body, **more)


def upload(broker: BrokerUnderTest, body: bytes, *, headers: Any = (), **more: Any) -> Answer:
    return broker.admin("POST", "resource/big/one/1", body, headers=headers, **more)


def policy(broker: BrokerUnderTest, body: bytes, *, headers: Any = (), **more: Any) -> Answer:
    return broker.admin("POST", "resource-policy", body, headers=headers, **more)


CLASSES = [(attest, ATTEST, 400), (upload, RESOURCE, 200), (auth, OTHER, 400), (policy, OTHER, 400)]


def too_large(answer: Answer) -> None:
    expect(answer, 413, "PayloadTooLarge", "payload_too_large")
    assert answer.header("connection") == "close"


@pytest.mark.parametrize(("send", "limit", "status"), CLASSES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_exactly_the_limit_passes_and_one_more_does_not(
    standing: BrokerUnderTest, send: Any, limit: int, status: int
) -> None:
    assert send(standing, bytes(limit)).status == status
    too_large(send(standing, bytes(limit + 1)))
    too_large(send(standing, b"", declared=limit + 1))
    too_large(send(standing, b"", declared=10**17))
    parts = [bytes(limit // 4)] * 4
    assert send(standing, b"", chunks=parts).status == status
    too_large(send(standing, b"", chunks=[*parts, b"x"]))


@pytest.mark.parametrize(("send", "limit", "status"), CLASSES, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP"])
def test_limits_hold_after_inflation(
    standing: BrokerUnderTest, coding: str, send: Any, limit: int, status: int
) -> None:
    pack = zlib.compress if coding == "deflate" else gzip.compress
    headers = {"Content-Encoding": coding}
    assert send(standing, pack(bytes(limit)), headers=headers).status == status
    too_large(send(standing, pack(bytes(limit + 1)), headers=headers))


@pytest.mark.parametrize("send", [attest, upload])
def test_a_bomb_is_never_inflated(standing: BrokerUnderTest, send: Any) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    tracemalloc.start()
    too_large(send(standing, bomb, headers={"Content-Encoding": "gzip"}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20  # the bomb has 64


@pytest.mark.parametrize("send", [auth, upload], ids=["auth", "upload"])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("zstd", b"x"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0)),
        ("gzip,identity", gzip.compress(b"x", mtime=0)),
        ("", b"x"),
        ("gzip", b"x"),
        ("gzip", b""),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-1]),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-8] + bytes(8)),
        ("gzip", gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0)),
        ("gzip", gzip.compress(b"a", mtime=0) + b"x"),
        ("deflate", b"x"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_encodings_that_are_not_what_they_say(standing: BrokerUnderTest, send: Any, coding: str, body: bytes) -> None:
    answer = send(standing, body, headers={"Content-Encoding": coding})
    expect(answer, 400, "AttestationError" if send is auth else "MalformedRequest", "malformed_request")


def test_a_gzip_body_is_read(broker: BrokerUnderTest) -> None:
    handshake = broker.handshake()
    headers = {**session(handshake.cookie), "Content-Encoding": "gzip"}
    assert broker.call("POST", "/kbs/v0/attest", headers, gzip.compress(handshake.body)).status == 200
    assert upload(broker, gzip.compress(b"plain"), headers={"Content-Encoding": "gzip"}).status == 200
    assert broker.guest().get_resource("big/one/1") == b"plain"


def test_a_body_in_chunks_is_read_whole(broker: BrokerUnderTest) -> None:
    handshake = broker.handshake()
    chunks = [handshake.body[at : at + 100] for at in range(0, len(handshake.body), 100)]
    assert broker.call("POST", "/kbs/v0/attest", session(handshake.cookie), chunks=chunks).status == 200
    assert upload(broker, b"", chunks=[b"one ", b"two ", b"three"]).status == 200
    assert broker.guest().get_resource("big/one/1") == b"one two three"


def test_a_body_that_breaks_off_changes_nothing(broker: BrokerUnderTest) -> None:
    assert upload(broker, b"whole").status == 200
    expect(upload(broker, b"", chunks=[b"ha", b"lf"], cut=True), 400, "MalformedRequest", "malformed_request")
    assert broker.guest().get_resource("big/one/1") == b"whole"
    handshake = broker.handshake()
    answer = broker.call("POST", "/kbs/v0/attest", session(handshake.cookie), chunks=[handshake.body], cut=True)
    expect(answer, 400, "AttestationError", "malformed_request")
    assert handshake.attest().status == 200


@pytest.mark.parametrize("length", ["x", "-1", "+1", "1,1", "0x10", "٣", "1 1"])
def test_a_length_that_is_no_number(length: str) -> None:
    """Servers refuse these before us; should one not, we do."""
    with pytest.raises(MalformedMessage):
        check_declared(length, 100)


def test_no_content_type_is_asked_for(broker: BrokerUnderTest) -> None:
    first = json.dumps({"version": "0.4.0", "tee": "sample", "extra-params": ""}).encode()
    for kind in (None, "text/html", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "é"):
        headers = {} if kind is None else {"Content-Type": kind}
        assert broker.call("POST", "/kbs/v0/auth", headers, first).status == 200
        assert upload(broker, b"a=b&c=d", headers=headers).status == 200
    assert broker.guest().get_resource("big/one/1") == b"a=b&c=d"


def test_a_get_with_a_body(standing: BrokerUnderTest) -> None:
    token = standing.guest().attest()
    headers = {"Authorization": f"Bearer {token}"}
    target = "/kbs/v0/resource/default/key/1"
    assert standing.call("GET", target, headers, b"x" * 100).status == 200
    too_large(standing.call("GET", target, headers, bytes(OTHER + 1)))
