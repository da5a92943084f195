"""`rvps serve` as its clients meet it: a real process, real gRPC, real HTTP."""

from __future__ import annotations

import base64
import json
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click.testing
import grpc
import httpx
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

from rvps import cli
from rvps.client import RemoteSettings, remote
from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.proto import reference_pb2, reference_pb2_grpc, values_pb2, values_pb2_grpc
from tests.fakes.running_provider import ROOT, RunningProvider
from tests.rvps.test_service import sample

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

V0 = "/kbs/v0/"
LIST = V0 + "admin/reference-values"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    running = RunningProvider(tmp_path_factory.mktemp("rvps") / "data")
    yield running
    assert running.stop() == 0


@pytest.fixture
def channel(service: RunningProvider) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.grpc) as made:
        yield made


@pytest.fixture
def reference(channel: grpc.Channel) -> reference_pb2_grpc.ReferenceValueProviderServiceStub:
    return reference_pb2_grpc.ReferenceValueProviderServiceStub(channel)


@pytest.fixture
def values(channel: grpc.Channel) -> values_pb2_grpc.ReferenceValuesStub:
    return values_pb2_grpc.ReferenceValuesStub(channel)


def bearer(service: RunningProvider, name: str = "admin-token") -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token(name)}"}


def proof(service: RunningProvider) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {service.token()}")]


def put(service: RunningProvider, given: dict[str, Any]) -> httpx.Response:
    return httpx.post(
        f"http://{service.rest}{V0}reference-value", json=sample(given), headers=bearer(service), trust_env=False
    )


def query(reference: reference_pb2_grpc.ReferenceValueProviderServiceStub, name: str) -> str | None:
    answer = reference.QueryReferenceValue(reference_pb2.ReferenceValueQueryRequest(reference_value_id=name))
    return answer.reference_value_results if answer.HasField("reference_value_results") else None


# --- upstream's API --------------------------------------------------------------------------------------------------


def test_a_client_generated_from_the_documented_proto_registers_and_queries(
    service: RunningProvider, tmp_path: Path
) -> None:
    """In a process of its own: one process takes each message type only once."""
    (tmp_path / "documented.proto").write_text((ROOT / "rvps/proto/reference.proto").read_text())
    made = protoc.main(
        ["", f"-I{tmp_path}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", "documented.proto"]
    )
    assert made == 0
    script = """
import sys, grpc, documented_pb2 as m, documented_pb2_grpc as s
stub = s.ReferenceValueProviderServiceStub(grpc.insecure_channel(sys.argv[1]))
found = stub.QueryReferenceValue(m.ReferenceValueQueryRequest(reference_value_id="__healthcheck__"), timeout=1)
assert not found.HasField("reference_value_results")
metadata = [("authorization", "Bearer " + sys.argv[2])]
stub.RegisterReferenceValue(m.ReferenceValueRegisterRequest(message=sys.argv[3]), metadata=metadata)
print(stub.QueryReferenceValue(m.ReferenceValueQueryRequest(reference_value_id="generated")).reference_value_results)
"""
    message = json.dumps(sample({"generated": ["a", 1, None]}))
    done = subprocess.run(
        [sys.executable, "-c", script, service.grpc, service.token(), message],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stderr, done.stdout) == ("", '["a",1,null]\n')


def test_bytes_made_by_hand_from_the_proto_are_understood(service: RunningProvider, channel: grpc.Channel) -> None:
    """Field 1, length-delimited: what any client of the field sends."""
    put(service, {"by-hand": True})
    call: Any = channel.unary_unary("/reference.ReferenceValueProviderService/QueryReferenceValue")
    assert call(b"\x0a\x07by-hand") == b"\x0a\x04true"
    assert call(b"\x0a\x04none") == b""
    assert call(b"") == b""


def test_the_recorded_requests_of_the_fields_tools_work(service: RunningProvider) -> None:
    """rvps-tool's message file and kbs-client's `set-sample-reference-value`: rvps 6.2 and 8."""
    text = '{"version":"0.1.0","type":"sample","payload":"eyJzdm4iOlsiMSJdfQ=="}'
    url = f"http://{service.rest}{V0}reference-value"
    with httpx.Client(headers=bearer(service), trust_env=False) as client:
        answer = client.post(url, content=text, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, b"", "application/json")
        assert client.get(url + "/svn").json() == ["1"]
        assert client.get(url + "/rvps:///github.com/a:v1").status_code == 404


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "parse message: not JSON at character 0"),
        ("[]", "parse message: not a JSON object"),
        ('{"type":"sample"}', "parse message: `payload` is missing"),
        ('{"payload":"e30="}', "parse message: `type` is missing"),
        ('{"version":"0.2.0","type":"sample","payload":"e30="}', "Version unmatched! Need 0.1.0, given 0.2.0."),
        ('{"type":"in-toto","payload":"e30="}', "Could not find extractor for in-toto"),
        ('{"type":"sample","payload":"e30"}', "base64 decode of payload failed"),
        ('{"type":"sample","payload":"e30=","type":"sample"}', "parse message: a member is repeated"),
        ('{"type":"sample","payload":"W10="}', "sample payload: not a JSON object"),
    ],
)
def test_every_wrong_message_is_aborted_in_the_fields_words(
    service: RunningProvider,
    reference: reference_pb2_grpc.ReferenceValueProviderServiceStub,
    message: str,
    words: str,
) -> None:
    request = reference_pb2.ReferenceValueRegisterRequest(message=message)
    with pytest.raises(grpc.RpcError) as caught:
        reference.RegisterReferenceValue(request, metadata=proof(service))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert (caught.value.details() or "").startswith(f"Register reference value: {words}")


@pytest.mark.parametrize("kind", ["sample", "swid", "corim"])
def test_unsigned_messages_of_strangers_are_refused(
    reference: reference_pb2_grpc.ReferenceValueProviderServiceStub, kind: str
) -> None:
    payload = base64.b64encode(b"<SoftwareIdentity/>" if kind == "swid" else b"{}").decode()
    message = json.dumps({"type": kind, "payload": payload})
    with pytest.raises(grpc.RpcError) as caught:
        reference.RegisterReferenceValue(reference_pb2.ReferenceValueRegisterRequest(message=message))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "--insecure-unsigned" in (caught.value.details() or "")


def test_health_is_served(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "reference.ReferenceValueProviderService", "kbs.rvps.v1.ReferenceValues"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_is_no_call_of_ours_is_refused_and_the_rest_goes_on(
    service: RunningProvider, channel: grpc.Channel
) -> None:
    for method, body, code in (
        ("/reference.ReferenceValueProviderService/DeleteReferenceValue", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/reference.ReferenceValueProviderService/QueryReferenceValue", b"\xff\xff\xff", grpc.StatusCode.UNKNOWN),
        ("/none/None", b"", grpc.StatusCode.UNIMPLEMENTED),
    ):
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(body)
        assert caught.value.code() is code
    with socket.create_connection(_address(service.grpc)) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 16)
    with socket.create_connection(_address(service.rest)) as garbage:
        garbage.sendall(b"\x00" * 4096)
    assert httpx.get(f"http://{service.rest}/healthz", trust_env=False).status_code == 200


def test_a_message_that_is_too_large_has_a_clear_status(
    service: RunningProvider, reference: reference_pb2_grpc.ReferenceValueProviderServiceStub
) -> None:
    request = reference_pb2.ReferenceValueRegisterRequest(message="x" * (13 << 20))
    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        reference.RegisterReferenceValue(request, metadata=proof(service))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    url = f"http://{service.rest}{V0}reference-value"
    answer = httpx.post(url, content=b"x" * (13 << 20), headers=bearer(service), trust_env=False)
    assert (answer.status_code, answer.json()["detail"]) == (413, "more than 12582912 octets")


def test_pings_between_calls_are_answered_and_end_nothing(service: RunningProvider) -> None:
    """As the field's client keeps its connections open; gRPC's own limit is two such pings in ten minutes.

    Source: RFC 9113 sections 3.4, 4.1, 6.5, 6.7, 6.8.
    """
    ping, settings, goaway, ack = 6, 4, 7, 1
    with socket.create_connection(_address(service.grpc), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(settings, 0))
        for n in range(12):
            connection.sendall(_frame(ping, 0, struct.pack(">Q", n)))
        answered: list[int] = []
        stream = connection.makefile("rb")
        while len(answered) < 12:
            head = stream.read(9)
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            body = stream.read(size)
            assert kind != goaway, body
            if kind == ping and flags & ack:
                answered.append(struct.unpack(">Q", body)[0])
    assert answered == list(range(12))


def _frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def test_a_hundred_clients_at_once(service: RunningProvider) -> None:
    put(service, {"shared": 1})

    def work(n: int) -> str | None:
        with grpc.insecure_channel(service.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as own:
            stub = reference_pb2_grpc.ReferenceValueProviderServiceStub(own)
            message = json.dumps(sample({f"client-{n}": n}))
            stub.RegisterReferenceValue(
                reference_pb2.ReferenceValueRegisterRequest(message=message), metadata=proof(service)
            )
            return query(stub, f"client-{n}")

    with ThreadPoolExecutor(100) as threads:
        assert list(threads.map(work, range(100))) == [str(n) for n in range(100)]


# --- our own service -------------------------------------------------------------------------------------------------


def test_values_are_shown_listed_and_withdrawn(
    service: RunningProvider, values: values_pb2_grpc.ReferenceValuesStub
) -> None:
    put(service, {"own/a": [1], "own/b": {"x": None}})
    found = values.Get(values_pb2.GetRequest(name="own/b"))
    assert (found.name, found.value, found.valid) == ("own/b", '{"x":null}', True)
    assert re.fullmatch(r"admin:local#[0-9a-f]{12}", found.issuer)
    listed = values.List(values_pb2.ListRequest(prefix="own/"), metadata=proof(service))
    assert [value.name for value in listed] == ["own/a", "own/b"]
    values.Withdraw(values_pb2.WithdrawRequest(name="own/a"), metadata=proof(service))
    for request, call in ((values_pb2.GetRequest(name="own/a"), values.Get), (_withdraw("own/a"), values.Withdraw)):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=proof(service))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def _withdraw(name: str) -> Message:
    return values_pb2.WithdrawRequest(name=name)


def test_a_statement_is_revoked(service: RunningProvider, values: values_pb2_grpc.ReferenceValuesStub) -> None:
    put(service, {"stolen/a": 1, "stolen/b": 1})
    statement = values.Get(values_pb2.GetRequest(name="stolen/a")).statement
    request = values_pb2.RevokeRequest(statement=statement, reason="the key is gone")
    values.Revoke(request, metadata=proof(service))
    for name in ("stolen/a", "stolen/b"):
        assert httpx.get(f"http://{service.rest}{V0}reference-value/{name}", trust_env=False).status_code == 404
    with pytest.raises(grpc.RpcError) as caught:
        values.Revoke(values_pb2.RevokeRequest(statement="9" * 16, reason="x"), metadata=proof(service))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("token", [None, "Bearer x", "Bearer", "Basic YTpi"])
def test_nobody_lists_or_changes_without_a_token(
    service: RunningProvider, values: values_pb2_grpc.ReferenceValuesStub, token: str | None
) -> None:
    metadata = [] if token is None else [("authorization", token)]
    for work in (
        lambda: list(values.List(values_pb2.ListRequest(), metadata=metadata)),
        lambda: values.Withdraw(values_pb2.WithdrawRequest(name="svn"), metadata=metadata),
        lambda: values.Revoke(values_pb2.RevokeRequest(statement="1"), metadata=metadata),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            work()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    headers = {} if token is None else {"Authorization": token}
    with httpx.Client(base_url=f"http://{service.rest}", headers=headers, trust_env=False) as client:
        for method, path in (
            ("GET", LIST),
            ("GET", LIST + "/snapshot"),
            ("GET", LIST + "/statements"),
            ("GET", LIST + "/why?name=svn"),
            ("POST", LIST + "/dry-run"),
            ("POST", LIST + "/statements/1/revoke"),
            ("DELETE", LIST + "/svn"),
        ):
            assert client.request(method, path).status_code == 401, (method, path)


# --- what is on the disk ---------------------------------------------------------------------------------------------


def test_the_data_directory_is_private(service: RunningProvider) -> None:
    assert stat.S_IMODE(service.data.stat().st_mode) == 0o700
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in service.data.iterdir()}
    assert found.pop("newest-event") == 0o600
    assert found == dict.fromkeys(("admin-token", "broker-token", "rvps.db", "rvps.db-wal", "rvps.db-shm"), 0o600)
    assert service.token() != service.token("broker-token")
    assert service.token() not in service.log


def test_kill_while_registering_a_full_disk_and_a_restart(tmp_path: Path) -> None:
    """What was acknowledged is there, whole; brokers that hold a snapshot carry on and find the new process."""
    running = RunningProvider(tmp_path / "data", "--insecure-unsigned")
    assert '"option": "--insecure-unsigned"' in running.log
    grpc_at, rest_at = running.grpc, running.rest
    token = running.token("broker-token")
    broker = remote(RemoteSettings(url=f"http://{rest_at}", token=token, poll_seconds=0.1, max_age_seconds=30))
    assert dict(broker.snapshot(now()).values) == {}
    acknowledged: list[int] = []

    def register() -> None:
        with grpc.insecure_channel(grpc_at) as own:
            stub = reference_pb2_grpc.ReferenceValueProviderServiceStub(own)
            for n in range(10_000):
                message = json.dumps(sample({f"n{n}/{part}": n for part in range(50)}))
                try:
                    stub.RegisterReferenceValue(reference_pb2.ReferenceValueRegisterRequest(message=message))
                except grpc.RpcError:
                    return
                acknowledged.append(n)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(register)
        _seconds_until(lambda: broker.query("n0/0", now()) == 0)
        running.kill()
        writing.result(30)
    assert broker.query("n0/0", now()) == 0, "the snapshot in memory is younger than 30 s"
    with pytest.raises(ProviderUnavailable):
        broker.register(sample({"late": 1}), issuer="admin:ann#1", at=now())
    again = RunningProvider(tmp_path / "data", listen=grpc_at, rest=rest_at)
    (line,) = broker.register(sample({"late": 1}), issuer="admin:ann#1", at=now())
    assert line.issuer == "admin:ann#1"
    values = broker.snapshot(now()).values
    for n in range(acknowledged[-1] + 2):
        there = sum(f"n{n}/{part}" in values for part in range(50))
        assert there == 50 or (there == 0 and n > acknowledged[-1]), "all of a message or nothing"
    limit = resource.prlimit(again.process.pid, resource.RLIMIT_FSIZE, (1 << 14, resource.RLIM_INFINITY))
    with pytest.raises(ProviderUnavailable):
        broker.register(sample({"full": "x" * 100_000}), issuer="admin:ann#1", at=now())
    assert broker.query("late", now()) == 1
    resource.prlimit(again.process.pid, resource.RLIMIT_FSIZE, limit)
    broker.register(sample({"full": 1}), issuer="admin:ann#1", at=now())
    assert broker.query("full", now()) == 1
    broker.close()
    assert again.stop() == 0


# --- brokers ---------------------------------------------------------------------------------------------------------


def test_a_revocation_reaches_every_replica_within_a_second(service: RunningProvider) -> None:
    settings = RemoteSettings(url=f"http://{service.rest}", token=service.token("broker-token"))
    replicas = [remote(settings) for _ in range(2)]
    replicas[0].register(sample({"fleet": ["1"]}), issuer="admin:jürgen#1", at=now())
    assert _seconds_until(lambda: all(each.query("fleet", now()) == ["1"] for each in replicas)) < 1
    (status,) = [each for each in replicas[1].statements(now()) if each.names == ("fleet",)]
    assert status.issuer == "admin:jürgen#1"
    why = replicas[1].why("fleet", ["1"], now())
    assert (why.delivered, why.matches) == (["1"], True)
    assert replicas[1].dry_run(sample({"fleet": ["2"]}), now(), issuer="admin:ann#2").changes[0].before == ["1"]
    revoked = replicas[0].revoke(status.id, reason="stolen", issuer="admin:ann#2", at=now())
    assert revoked.state == "revoked"
    assert replicas[0].query("fleet", now()) is None, "who revoked it sees it at once"
    assert _seconds_until(lambda: replicas[1].query("fleet", now()) is None) < 1
    with pytest.raises(StatementUnacceptable):
        replicas[0].revoke("9" * 16, reason="x", issuer="admin:ann#2", at=now())
    with pytest.raises(StatementUnacceptable):
        replicas[0].submit(sample({"a": 1}), now())
    with pytest.raises(StatementUnacceptable, match="sample payload"):
        replicas[0].register({"type": "sample", "payload": "W10="}, issuer="admin:ann#2", at=now())
    assert replicas[0].statement("none", now()) is None
    assert replicas[0].signed_message("0" * 64) is None
    for each in replicas:
        each.close()


def _seconds_until(condition: Any) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 10
        time.sleep(0.01)
    return time.monotonic() - start


def test_only_a_broker_speaks_in_the_name_of_others(service: RunningProvider) -> None:
    url = f"http://{service.rest}{V0}reference-value"
    for issuer, status in (("admin:ann%231", 200), ("acme", 401), ("admin:%0a", 401), ("admin:" + "x" * 300, 401)):
        headers = {**bearer(service, "broker-token"), "RVPS-On-Behalf-Of": issuer}
        answer = httpx.post(url, json=sample({"named": 1}), headers=headers, trust_env=False)
        assert answer.status_code == status, issuer
    listed = httpx.get(f"http://{service.rest}{LIST}?name=named", headers=bearer(service), trust_env=False).json()
    assert [line["issuer"] for line in listed] == ["admin:ann#1"]


def test_tls_away_from_loopback_with_a_certificate_made_at_the_first_start(tmp_path: Path) -> None:
    running = RunningProvider(tmp_path / "data", listen="0.0.0.0:0", rest="0.0.0.0:0")
    ca = running.data / "tls/ca.pem"
    token = running.token("broker-token")
    trusting = remote(RemoteSettings(url=f"https://{running.rest}", token=token, ca_file=ca))
    trusting.register(sample({"a": 1}), issuer="admin:ann#1", at=now())
    assert trusting.query("a", now()) == 1
    strange = remote(RemoteSettings(url=f"https://{running.rest}", token=token))
    plain = remote(RemoteSettings(url=f"http://{running.rest}", token=token))
    wrong = remote(RemoteSettings(url=f"https://{running.rest}", token="x" * 43, ca_file=ca))
    for provider in (strange, plain, wrong):
        with pytest.raises(ProviderUnavailable):
            provider.snapshot(now())
        provider.close()
    trusting.close()
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(running.grpc, credentials) as own:
        assert query(reference_pb2_grpc.ReferenceValueProviderServiceStub(own), "a") == "1"
    assert stat.S_IMODE((running.data / "tls/server.key").stat().st_mode) == 0o600
    run = click.testing.CliRunner().invoke
    asked = ["query", "-r", "a", "-a", f"https://{running.grpc}", "--ca-file", str(ca)]
    assert run(cli.main, asked).output == "Get reference values succeeded:\n1\n"
    assert running.stop() == 0


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_speaks_as_the_fields_tool_does(service: RunningProvider, tmp_path: Path) -> None:
    run = click.testing.CliRunner().invoke
    message = tmp_path / "message.json"
    message.write_text(json.dumps(sample({"cli": ["1"]})))
    at = ["-a", f"http://{service.grpc}"]
    refused = run(cli.main, ["register", "-p", str(message), *at])
    assert refused.exit_code == 1
    assert "--insecure-unsigned" in refused.output
    token = str(service.data / "admin-token")
    done = run(cli.main, ["register", "-p", str(message), *at, "--token-file", token])
    assert (done.exit_code, done.output) == (0, "Register provenance succeeded.\n")
    found = run(cli.main, ["query", "-r", "cli", *at])
    assert (found.exit_code, found.output) == (0, 'Get reference values succeeded:\n["1"]\n')
    missing = run(cli.main, ["query", "-r", "none", *at])
    assert (missing.exit_code, missing.output) == (0, "No reference value found.\n")
    assert run(cli.main, ["query", "-r", "none", "--json", *at]).output == "null\n"
    assert run(cli.main, ["query", "cli", "--url", f"http://{service.rest}"]).output.endswith('["1"]\n')
    listed = run(cli.main, ["list", "--json", "--url", f"http://{service.rest}", "--token-file", token])
    assert "cli" in {line["name"] for line in json.loads(listed.output)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["query"], "one name is needed"),
        (["query", "a", "-r", "a"], "one name is needed"),
        (["query", "a", "-a", "127.0.0.1"], "--addr is no address"),
        (["query", "a", "-a", "ftp://127.0.0.1:1"], "--addr is no address"),
        (["query", "a", "-a", "http://127.0.0.1:x"], "--addr is no address"),
        (["query", "a", "-a", "http://127.0.0.1:1"], "UNAVAILABLE"),
        (["query", "a", "-a", "https://127.0.0.1:1", "--ca-file", "none.pem"], "none.pem"),
        (["register", "-p", "MESSAGE", "-a", "http://192.0.2.1:1", "--token-file", "TOKEN"], "in the clear"),
    ],
)
def test_wrong_options_say_what_to_do(options: list[str], words: str, tmp_path: Path) -> None:
    for name in ("MESSAGE", "TOKEN"):
        (tmp_path / name).write_text("t" * 43)
    given = [str(tmp_path / option) if option in ("MESSAGE", "TOKEN") else option for option in options]
    done = click.testing.CliRunner().invoke(cli.main, given)
    assert done.exit_code == 1
    assert words in done.output
    assert "Next: " in done.output
