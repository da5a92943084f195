"""Connections of strangers to `rvps serve` that send nothing, or half of something (threat-model P-DOS-1, P-DOS-2)."""

from __future__ import annotations

import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import httpx
import pytest

from rvps.proto import reference_pb2, reference_pb2_grpc
from tests.bench.__main__ import cpu_seconds
from tests.fakes.running_provider import RunningProvider

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

_SETTINGS, _HEADERS, _END_HEADERS = 4, 1, 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    running = RunningProvider(tmp_path_factory.mktemp("rvps") / "data")
    yield running
    assert running.stop() == 0


def dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head() -> bytes:
    """A gRPC call's, in the simplest coding (RFC 7541 section 6.2.2)."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/reference.ReferenceValueProviderService/QueryReferenceValue",
        b":authority": b"x",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    return b"".join(bytes([0, len(name)]) + name + bytes([len(text)]) + text for name, text in fields.items())


def test_calls_that_never_send_their_message_take_no_thread(service: RunningProvider) -> None:
    with dial(service.grpc) as stalled:
        stalled.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, b""))
        stalled.sendall(b"".join(frame(_HEADERS, _END_HEADERS, 1 + 2 * number, head()) for number in range(64)))
        stalled.recv(9)  # its settings: the calls after ours are not before them
        with grpc.insecure_channel(service.grpc) as channel:
            asked = reference_pb2.ReferenceValueQueryRequest(reference_value_id="unknown")
            stub = reference_pb2_grpc.ReferenceValueProviderServiceStub(channel)
            for _ in range(20):
                answer = stub.QueryReferenceValue(asked, timeout=10)
                assert not answer.HasField("reference_value_results")


def test_a_thousand_idle_sockets_keep_no_broker_out(service: RunningProvider) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with ExitStack() as held, httpx.Client(base_url=f"http://{service.rest}", trust_env=False) as broker:
        assert broker.get("/healthz").status_code == 200
        sockets = [held.enter_context(dial(service.rest)) for _ in range(1100)]
        assert broker.get("/healthz").status_code == 200  # on a connection from before
        assert httpx.get(f"http://{service.rest}/healthz", trust_env=False).status_code == 200  # and on a new one
        sockets[0].settimeout(10)
        assert sockets[0].recv(1) == b""  # made room


def test_half_a_head_is_not_waited_for(service: RunningProvider) -> None:
    began = time.monotonic()
    with dial(service.rest) as first, dial(service.rest) as second:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert second.recv(15) == b"HTTP/1.1 200 OK"
        second.sendall(b"GET /healthz HTTP/1.1\r\nHo")  # the second head of a connection
        for connection in (first, second):
            connection.settimeout(20)
            while connection.recv(4096):
                pass
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "body",
    [b"[" + b"[]," * (4 << 20) + b"0]", b"[" + b"{}," * (4 << 20) + b"0]", b"[" + b"1," * (6 << 20) + b"0]"],
    ids=["lists", "objects", "numbers"],
)
def test_a_message_of_many_members_is_refused_unread(service: RunningProvider, body: bytes) -> None:
    """12 MiB of `[],` take seconds to read and 250 MiB to hold, and nobody needs a token to send them."""
    began = cpu_seconds(service.process.pid)
    answer = httpx.post(
        f"http://{service.rest}/kbs/v0/admin/reference-values/submit", content=body[: 12 << 20], trust_env=False
    )
    assert answer.status_code == 422
    assert "members" in answer.json()["detail"]
    assert cpu_seconds(service.process.pid) - began < 2
