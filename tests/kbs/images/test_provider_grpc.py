"""The key provider over gRPC, as ocicrypt's client speaks, and the stubs in the tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
import pytest
from grpc_tools import protoc

from kbs.images.errors import LocationRefused
from kbs.images.proto import keyprovider_pb2
from kbs.images.provider import KeyProvider
from kbs.images.provider_grpc import ProviderServer
from kbs.images.provider_keks import Keks
from tests.kbs.images.test_provider import CASES, KID, PLBCO, FakeBroker, unwrap_request, wrap_request

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.enable_socket


def test_the_checked_in_stubs_are_those_that_the_compiler_makes(tmp_path: Path) -> None:
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    include = Path(grpc_tools.__file__).parent / "_proto"
    assert protoc.main(["", f"-I{ROOT}", f"-I{include}", *outputs, "kbs/images/proto/keyprovider.proto"]) == 0
    made = {path.name: path.read_text() for path in (tmp_path / "kbs/images/proto").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "kbs/images/proto").glob("*_pb2*")}
    assert kept == made, "run: make proto"


def test_numbers_and_names_are_the_fields() -> None:
    """guest-components 2.3."""
    file = keyprovider_pb2.DESCRIPTOR
    (service,) = file.services_by_name.values()
    assert (file.package, service.name) == ("keyprovider", "KeyProviderService")
    assert [method.name for method in service.methods] == ["WrapKey", "UnWrapKey"]
    for message in file.message_types_by_name.values():
        (member,) = message.fields
        assert (member.name, member.number, member.type) == (message.name, 1, 12)


class Client:
    """Raw bytes of the messages: field 1, length-delimited."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def call(self, method: str, message: bytes) -> bytes:
        packed = keyprovider_pb2.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=message)
        ask: Any = self._channel.unary_unary(f"/keyprovider.KeyProviderService/{method}")
        raw: bytes = ask(packed.SerializeToString(), timeout=10)
        return keyprovider_pb2.KeyProviderKeyWrapProtocolOutput.FromString(raw).KeyProviderKeyWrapProtocolOutput

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture(scope="module")
def client(broker: FakeBroker) -> Iterator[Client]:
    server = ProviderServer(KeyProvider(Keks(registration=broker.registration())), "127.0.0.1:0")
    server.start()
    client = Client(server.address)
    yield client
    client.close()
    server.stop()


def test_the_message_is_that_of_the_vectors() -> None:
    case = CASES["A256GCM"]
    packed = keyprovider_pb2.KeyProviderKeyWrapProtocolInput(
        KeyProviderKeyWrapProtocolInput=case["wrapkey_request_json"].encode()
    ).SerializeToString()
    assert packed.hex().startswith(case["wrapkey_request_grpc_message_hex_prefix"])
    assert len(packed) == case["wrapkey_request_grpc_message_len"]


def test_there_and_back(client: Client, broker: FakeBroker) -> None:
    answers = [client.call("WrapKey", wrap_request(f"keyid={KID}")) for _ in range(3)]
    assert broker.requests == [f"store {KID.removeprefix('kbs:///')}"]
    for answer in answers:
        packet = bytes(json.loads(answer)["keywrapresults"]["annotation"])
        opened = json.loads(client.call("UnWrapKey", unwrap_request(packet)))
        assert bytes(opened["keyunwrapresults"]["optsdata"]) == PLBCO


@pytest.mark.parametrize(
    ("method", "message", "code", "says"),
    [
        ("WrapKey", b"junk", grpc.StatusCode.INVALID_ARGUMENT, "not JSON"),
        ("WrapKey", wrap_request("x=1"), grpc.StatusCode.INVALID_ARGUMENT, "unknown parameter"),
        ("WrapKey", wrap_request("keyid=kbs://a/b/c"), grpc.StatusCode.INVALID_ARGUMENT, "three slashes"),
        ("WrapKey", wrap_request("keyid=a/b/c::keypath=/no"), grpc.StatusCode.FAILED_PRECONDITION, "/no: No such file"),
        ("WrapKey", wrap_request("keyid=x/y/taken"), grpc.StatusCode.FAILED_PRECONDITION, "at the broker already"),
        ("UnWrapKey", unwrap_request(b"{}"), grpc.StatusCode.INVALID_ARGUMENT, "annotation packet"),
        (
            "UnWrapKey",
            unwrap_request(CASES["A256GCM"]["annotation_packet"] | {"kid": "kbs:///no/such/kek"}),
            grpc.StatusCode.FAILED_PRECONDITION,
            "try: ",
        ),
        ("UnwrapKey", b"", grpc.StatusCode.UNIMPLEMENTED, ""),
    ],
    ids=range(8),
)
def test_refusals(
    client: Client, broker: FakeBroker, method: str, message: bytes, code: grpc.StatusCode, says: str
) -> None:
    broker.stored["x/y/taken"] = bytes(32)
    with pytest.raises(grpc.RpcError) as caught:
        client.call(method, message)
    assert caught.value.code() is code
    assert says in str(caught.value.details())


def test_a_broker_that_refuses_fails_the_call(client: Client, broker: FakeBroker) -> None:
    broker.fails = True
    try:
        with pytest.raises(grpc.RpcError) as caught:
            client.call("WrapKey", wrap_request("keyid=not/stored/kek"))
    finally:
        broker.fails = False
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_bug_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(kid: str, keypath: Path | None) -> None:
        raise RuntimeError("private")

    keks = Keks()
    monkeypatch.setattr(keks, "to_wrap", fails)
    server = ProviderServer(KeyProvider(keks), "127.0.0.1:0")
    server.start()
    client = Client(server.address)
    with pytest.raises(grpc.RpcError) as caught:
        client.call("WrapKey", wrap_request("keyid=a/b/c"))
    client.close()
    server.stop()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")


def test_a_unix_socket(tmp_path: Path) -> None:
    server = ProviderServer(KeyProvider(Keks(registration=FakeBroker().registration())), f"unix:{tmp_path}/s")
    server.start()
    client = Client(server.address)
    assert b"keywrapresults" in client.call("WrapKey", wrap_request("keyid=a/b/c"))
    client.close()
    server.stop()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:50000", "50000", ""])
def test_other_machines_do_not_reach_it(listen: str) -> None:
    with pytest.raises(LocationRefused, match="in clear"):
        ProviderServer(KeyProvider(Keks()), listen)


def test_a_port_that_is_taken() -> None:
    server = ProviderServer(KeyProvider(Keks()), "127.0.0.1:0")
    server.start()
    with pytest.raises(LocationRefused, match="taken"):
        ProviderServer(KeyProvider(Keks()), server.address)
    server.stop()
