"""The field's gRPC API, as `rvps-tool` speaks it: `-a/--addr` of `rvps register` and `rvps query`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rvps.cli.connection import Failure, is_loopback, read_token, shown

_SECONDS: Final = 60.0
_NEXT: Final = {
    "ABORTED": "mend the message, or give a token with --token-file",
    "UNAUTHENTICATED": "name the `admin-token` of the service's data directory with --token-file",
    "RESOURCE_EXHAUSTED": "split the message into several",
    "UNAVAILABLE": "check --addr, and that `rvps serve` runs there",
    "UNIMPLEMENTED": "check that --addr names a reference value provider",
}


def register(addr: str, message: bytes, token_file: Path | None, ca_file: Path | None) -> None:
    """Send one message.

    Raises:
        Failure: it was refused, or nobody answers.
    """
    from rvps.proto import reference_pb2, reference_pb2_grpc

    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise Failure("the message is not UTF-8", "give the message as JSON text") from None
    with _channel(addr, token_file, ca_file) as (channel, metadata):
        stub = reference_pb2_grpc.ReferenceValueProviderServiceStub(channel)
        request = reference_pb2.ReferenceValueRegisterRequest(message=text)
        stub.RegisterReferenceValue(request, timeout=_SECONDS, metadata=metadata)


def query(addr: str, name: str, ca_file: Path | None) -> str | None:
    """JSON text of one value, or None.

    Raises:
        Failure: nobody answers.
    """
    from rvps.proto import reference_pb2, reference_pb2_grpc

    with _channel(addr, None, ca_file) as (channel, _):
        stub = reference_pb2_grpc.ReferenceValueProviderServiceStub(channel)
        answer = stub.QueryReferenceValue(
            reference_pb2.ReferenceValueQueryRequest(reference_value_id=name), timeout=_SECONDS
        )
        return str(answer.reference_value_results) if answer.HasField("reference_value_results") else None


@contextmanager
def _channel(
    addr: str, token_file: Path | None, ca_file: Path | None
) -> Iterator[tuple[object, list[tuple[str, str]]]]:
    # a quarter of a second to load, which no other command should pay for
    import grpc

    host, target, is_plain = _target(addr)
    if token_file is not None and is_plain and not is_loopback(host):
        raise Failure("a token is not sent in the clear to another machine", "give an https:// address")
    metadata = [] if token_file is None else [("authorization", f"Bearer {read_token(token_file)}")]
    if is_plain:
        channel = grpc.insecure_channel(target)
    else:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(_roots(ca_file)))
    try:
        yield channel, metadata
    except grpc.RpcError as err:
        call: Any = err  # what a stub raises is its call too
        code: str = call.code().name
        raise Failure(f"{code}: {shown(call.details() or '')}", _NEXT.get(code, "see the log of the service")) from err
    finally:
        channel.close()


def _target(addr: str) -> tuple[str, str, bool]:
    """Host, HOST:PORT, and whether it is plain; without a scheme it is."""
    refusal = Failure("--addr is no address", "give an address like http://127.0.0.1:50003")
    try:
        parts = urlsplit(addr if "://" in addr else f"http://{addr}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refusal from None
    if not host or port is None or parts.scheme not in ("http", "https"):
        raise refusal
    return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", parts.scheme == "http"


def _roots(ca_file: Path | None) -> bytes | None:
    try:
        return None if ca_file is None else ca_file.read_bytes()
    except OSError as err:
        raise Failure(f"{ca_file}: {err.strerror}", "name the `tls/ca.pem` of the service's data directory") from err
