"""`kbs serve` with two workers over TLS: what only real processes and sockets can show."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import ssl
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.running_broker import FIRST, RunningBroker, read_answer, request

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

HEAD_LIMIT = 131_072
FIELDS = 96


def padded(size: int, *headers: str, target: str = "/healthz") -> bytes:
    """A GET whose head has exactly this many octets."""
    bare = request("GET", target, *headers, "X-Pad: ")
    return request("GET", target, *headers, "X-Pad: " + "a" * (size - len(bare)))


def test_a_handshake_ends_on_another_worker(server: RunningBroker) -> None:
    """Every request on a connection of its own, until both workers must have had a part in some handshake."""
    for _ in range(12):
        with server.guest() as asking:
            body = asking.attestation_for(asking.challenge())
            cookie = asking.cookie
        with server.guest() as answering:
            answering.cookie = cookie
            token = answering.submit(body)
        with server.guest() as again:
            again.cookie = cookie
            assert again.submit(body) == token


def test_a_replay_fails_on_every_worker(server: RunningBroker) -> None:
    with server.guest() as guest:
        body = guest.attestation_for(guest.challenge())
        guest.submit(body)
        headers = ("Content-Type: application/json", f"Cookie: kbs-session-id={guest.cookie}")
    other = body.replace(b'"svn":"1"', b'"svn":"2"')
    assert other != body
    for _ in range(12):
        status, _, answer = server.exchange(request("POST", "/kbs/v0/attest", *headers, body=other))
        assert (status, json.loads(answer)["reason"]) == (401, "challenge_used")


def test_the_head_has_128_kib_and_96_fields(server: RunningBroker) -> None:
    many = [f"X-{at}: 1" for at in range(FIELDS - 1)]
    assert server.exchange(padded(HEAD_LIMIT))[0] == 200
    assert server.exchange(padded(HEAD_LIMIT, "X-More: " + "b" * 60_000))[0] == 200
    assert server.exchange(request("GET", "/healthz", *many))[0] == 200
    for octets in (
        padded(HEAD_LIMIT + 1),
        padded(HEAD_LIMIT + 1, "X-More: " + "b" * 60_000),
        request("GET", "/healthz", *many, "X-Last: 1"),
    ):
        status, head, _ = server.exchange(octets)
        assert status == 431
        assert b"connection: close" in head.lower()


def test_a_head_that_never_ends_is_cut_at_its_limit(server: RunningBroker) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        for _ in range(33):
            connection.sendall(b"a" * 4096)
        assert read_answer(connection)[0] == 431


def test_a_head_limit_holds_for_later_requests_of_a_connection(server: RunningBroker) -> None:
    with server.connect() as connection:
        for _ in range(20):
            connection.sendall(padded(100_000))
            assert read_answer(connection)[0] == 200
        connection.sendall(padded(HEAD_LIMIT + 1))
        assert read_answer(connection)[0] == 431


def test_a_bearer_token_of_60_kib_is_read(server: RunningBroker) -> None:
    token = "Authorization: Bearer " + "a" * (60 << 10)
    status, _, body = server.exchange(request("GET", "/kbs/v0/resource/a/b/c", token))
    assert (status, json.loads(body)["reason"]) == (401, "token_rejected")


def test_the_answer_to_a_body_too_large_arrives(server: RunningBroker) -> None:
    for size in ((8 << 20) + 1, 9 << 20):
        status, head, body = server.exchange(request("POST", "/kbs/v0/attest", body=bytes(size)))
        assert (status, json.loads(body)["reason"]) == (413, "payload_too_large")
        assert b"connection: close" in head.lower()


def test_a_chunked_upload_is_stored_whole(server: RunningBroker) -> None:
    head = request(
        "POST",
        "/kbs/v0/resource/chunked/one/1",
        f"Authorization: Bearer {server.admin_token}",
        "Transfer-Encoding: chunked",
    )
    status, _, _ = server.exchange(head + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert status == 200
    listed = server.exchange(
        request("GET", "/kbs/v0/admin/resources/chunked/one/1", f"Authorization: Bearer {server.admin_token}")
    )
    assert json.loads(listed[2])["versions"][0]["size"] == "11"


UNKNOWN_CODING = 400 if importlib.util.find_spec("gunicorn_h1c") else 501
"""gunicorn's two parsers of HTTP heads differ here; both refuse and close."""


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (request("GET", "http://localhost/healthz"), 404),
        (request("OPTIONS", "*"), 404),
        (request("GET", "/healthz", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAA"), 200),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),  # no Host
        (request("POST", "/kbs/v0/auth", "Content-Length: 1", "Content-Length: 2", body=b"x"), 400),
        (request("POST", "/kbs/v0/auth", "Transfer-Encoding: chunked", body=b"x"), 400),
        (request("POST", "/kbs/v0/auth", "Transfer-Encoding: nope"), UNKNOWN_CODING),
        (b"nonsense\r\n\r\n", 400),
        (request("GET", "/" + "a" * 65_600), 431),
    ],
    ids=["absolute", "asterisk", "h2c", "no-host", "lengths", "smuggling", "coding", "nonsense", "long-target"],
)
def test_odd_requests(server: RunningBroker, octets: bytes, status: int) -> None:
    assert server.exchange(octets)[0] == status


@pytest.mark.parametrize(
    ("octets", "status", "name"),
    [
        (b"GET /canary-7f HTTP/1.1\r\nAuthor ization: Bearer canary-7f\r\n\r\n", 400, "MalformedRequest"),
        (b"GET /canary-7f HTTP/1.1\r\nX: canary-7f\x00\r\n\r\n", 400, "MalformedRequest"),
        (b"canary-7f\r\n\r\n", 400, "MalformedRequest"),
        (b"GET /canary-7f HTTP/9.9 canary-7f\r\n\r\n", 400, "MalformedRequest"),
        (request("GET", "/" + "canary-7f" * 8_000), 431, "PayloadTooLarge"),
        (request("GET", "/healthz", *(f"X-{at}: canary-7f" for at in range(200))), 431, "PayloadTooLarge"),
    ],
    ids=["field-name", "field-value", "request-line", "version", "long", "many-fields"],
)
def test_what_is_no_request_is_refused_without_repeating_it(
    server: RunningBroker, octets: bytes, status: int, name: str
) -> None:
    found, head, body = server.exchange(octets)
    problem = json.loads(body)
    assert (found, problem["status"]) == (status, status)
    assert problem["type"].endswith(f"/{name}")
    assert isinstance(problem["detail"], str)
    assert b"application/problem+json" in head
    assert b"canary" not in head + body
    assert "canary-7f" not in server.log.read_text()


def test_there_are_no_web_sockets(server: RunningBroker) -> None:
    status, _, _ = server.exchange(
        request(
            "GET",
            "/kbs/v0/resource/a/b/c",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
    )
    assert status == 403


def test_tls_1_1_and_plain_http_are_refused(server: RunningBroker) -> None:
    with server.connect_plain() as connection:
        connection.sendall(request("GET", "/healthz"))
        assert not connection.recv(100).startswith(b"HTTP")
    with server.connect() as secure:
        assert secure.version() in ("TLSv1.2", "TLSv1.3")


def test_slow_and_silent_peers_do_not_starve_others(server: RunningBroker) -> None:
    """P-DOS-2: idle, half a TLS hello, half a head, half a body; an honest exchange ends before any is given up."""
    secret = f"Authorization: Bearer {server.admin_token}"
    parts = (
        b"GET /healthz HTTP/1.1\r\nX: ",
        request("POST", "/kbs/v0/auth", "Content-Length: 100") + b"{",
        request("POST", "/kbs/v0/resource-policy", secret, "Content-Length: 100") + b"{",
    )
    with ExitStack() as held:
        for at in range(40):
            connection = held.enter_context(server.connect_plain())
            if at % 2:
                connection.sendall(half_a_hello(server))
        for part in parts * 14:  # more half bodies for administration than Flask has threads
            held.enter_context(server.connect()).sendall(part)
        started = time.monotonic()
        with server.guest() as guest:
            guest.attest()
        assert server.exchange(request("GET", "/kbs/v0/admin/status", secret))[0] == 200
        assert time.monotonic() - started < 3


def half_a_hello(server: RunningBroker) -> bytes:
    """The first half of a TLS ClientHello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(server.ca))
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    return hello[: len(hello) // 2]


def test_a_slow_head_and_a_slow_hello_are_closed(server: RunningBroker) -> None:
    with server.connect_plain() as slow_hello, server.connect() as silent, server.connect() as slow_head:
        slow_hello.sendall(half_a_hello(server))
        slow_head.sendall(b"GET /healthz HTTP/1.1\r\n")
        started = time.monotonic()
        assert read_answer(slow_head)[0] == 408
        assert silent.recv(1) == b""
        assert slow_hello.recv(100) == b""
        assert 3 < time.monotonic() - started < 15


def test_work_goes_on_while_workers_are_killed(tmp_path: Path) -> None:
    """F4: each worker killed in turn; sessions survive, and no handshake ends in anything but an answer or a reset."""
    running = RunningBroker(tmp_path / "data")
    try:
        with running.guest() as guest:
            body = guest.attestation_for(guest.challenge())
            cookie = guest.cookie
        for victim in running.workers():
            os.kill(victim, signal.SIGKILL)
            assert attest_within(running, seconds=10)
        with running.guest() as again:
            again.cookie = cookie
            again.submit(body)
        deadline = time.monotonic() + 10
        while len(running.workers()) != 2 and time.monotonic() < deadline:
            time.sleep(0.05)  # the other one may have answered before the arbiter noticed
        assert len(running.workers()) == 2
    finally:
        assert running.stop() == 0


def attest_within(running: RunningBroker, *, seconds: float) -> bool:
    """Whether some handshake succeeds in that time; connections to a dying worker may be reset."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with running.guest() as guest:
            try:
                return bool(guest.attest())
            except Exception:  # noqa: BLE001 - whatever it is, the deadline decides
                time.sleep(0.05)
    return False


def test_sigterm_finishes_what_is_being_answered(tmp_path: Path) -> None:
    """Idle peers are let go, a request under way is answered, new ones find nobody, and the exit status is 0."""
    running = RunningBroker(tmp_path / "data")
    whole = request("POST", "/kbs/v0/auth", body=FIRST)
    with running.connect() as idle, running.connect() as under_way:
        idle.sendall(request("GET", "/healthz"))
        assert read_answer(idle)[0] == 200
        under_way.sendall(whole[:-10])
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        under_way.sendall(whole[-10:])
        assert read_answer(under_way)[0] == 200
    started = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started < 10  # and not the 20 s that are there for answers under way
    with pytest.raises(OSError):
        running.connect_plain()


def test_connections_are_bounded(tmp_path: Path) -> None:
    """Beyond the limit of a worker a connection is dropped, and those within it are served."""
    running = RunningBroker(tmp_path / "data", workers=1, settings={"KBS__SERVER__MAX_CONNECTIONS": "8"})
    try:
        with ExitStack() as stack:
            held = [stack.enter_context(running.connect()) for _ in range(8)]
            time.sleep(0.2)
            assert not is_served(running)
            held[0].sendall(request("GET", "/healthz"))
            assert read_answer(held[0])[0] == 200
        time.sleep(0.2)
        assert is_served(running)
    finally:
        assert running.stop() == 0


def is_served(running: RunningBroker) -> bool:
    """Whether a new connection gets an answer."""
    try:
        return running.exchange(request("GET", "/healthz"))[0] == 200
    except OSError:
        return False
