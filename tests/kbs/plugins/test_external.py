"""The plugin `external` against a real gRPC server in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kbs.client.tee_keys import TeeKeyPair
from kbs.errors import AccessDenied, ConfigInvalid, DependencyFault, KbsError, ResourceNotFound
from kbs.plugins.external import ExternalPlugin, build
from kbs.plugins.external.proto import plugin_pb2, plugin_pb2_grpc
from kbs.plugins.model import Access, Guest, PluginContext, PluginRequest
from kbs.storage.memory import MemoryStore
from tests.fakes.broker import START, StoppedClock

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]
GUEST = Guest({}, b"{}", TeeKeyPair.generate().public, START, None)


@dataclass
class Program(plugin_pb2_grpc.KbsPluginServicer):
    """An operator's program. `answer` makes what `Handle` says."""

    wants_admin: bool = False
    answer: Callable[[Any, Any], Any] = lambda _request, _context: plugin_pb2.PluginResponse(body=b"yes")
    seen: list[Any] = field(default_factory=list)

    def ValidateAuth(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name on the wire
        self.seen.append(request)
        return plugin_pb2.ValidateAuthResponse(requires_admin_auth=self.wants_admin)

    def Handle(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name on the wire
        self.seen.append(request)
        return self.answer(request, context)


@dataclass
class Running:
    program: Program
    plain: int
    tls: int
    folder: Path

    def plugin(self, **more: Any) -> ExternalPlugin:
        backend = {"name": "one", "endpoint": f"http://127.0.0.1:{self.plain}", **more}
        return make(self.folder, {"backends": [backend]})


def make(folder: Path, options: Mapping[str, Any]) -> ExternalPlugin:
    return build(PluginContext(MemoryStore(), StoppedClock(), os.urandom, folder, options))


def _certificate(folder: Path) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(START - timedelta(days=3650)).not_valid_after(START + timedelta(days=3650))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("external")
    pair = _certificate(folder)
    program = Program()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    plugin_pb2_grpc.add_KbsPluginServicer_to_server(program, server)
    plain = server.add_insecure_port("127.0.0.1:0")
    tls = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield Running(program, plain, tls, folder)
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def fresh(running: Running) -> None:
    running.program.__init__()  # type: ignore[misc]


def ask(plugin: ExternalPlugin, *segments: str, guest: Guest | None = GUEST, **more: Any) -> bytes:
    request = PluginRequest("GET", segments or ("one", "a", "b"), {"q": "1"}, b"body", guest=guest, **more)
    return plugin.handle(request).payload.reveal()


def test_a_request_reaches_the_program_as_it_came(running: Running) -> None:
    assert ask(running.plugin()) == b"yes"
    for seen in running.program.seen:
        assert (seen.body, dict(seen.query), [*seen.path], seen.method) == (b"body", {"q": "1"}, ["a", "b"], "GET")
    assert len(running.program.seen) == 2


def test_over_tls(running: Running) -> None:
    endpoint = f"https://localhost:{running.tls}"
    assert ask(running.plugin(endpoint=endpoint, ca_cert_path="ca.pem")) == b"yes"


def test_another_certificate_is_an_outage(running: Running, tmp_path: Path) -> None:
    _certificate(tmp_path)
    plugin = running.plugin(endpoint=f"https://localhost:{running.tls}", ca_cert_path=str(tmp_path / "ca.pem"))
    with pytest.raises(DependencyFault):
        ask(plugin)
    assert running.program.seen == []


def test_what_wants_an_administrator_is_not_for_guests(running: Running) -> None:
    running.program.wants_admin = True
    with pytest.raises(AccessDenied):
        ask(running.plugin())
    assert len(running.program.seen) == 1
    assert ask(running.plugin(), guest=None) == b"yes"


def _status(code: int) -> Callable[[Any, Any], Any]:
    return lambda _request, _context: plugin_pb2.PluginResponse(body=b"CANARY", status_code=code)


def _abort(code: grpc.StatusCode) -> Callable[[Any, Any], Any]:
    return lambda _request, context: context.abort(code, "CANARY")


REFUSALS: Mapping[str, tuple[Callable[[Any, Any], Any], type[KbsError]]] = {
    "404": (_status(404), ResourceNotFound),
    "403": (_status(403), AccessDenied),
    "500": (_status(500), DependencyFault),
    "199": (_status(199), DependencyFault),
    "300": (_status(300), DependencyFault),
    "negative": (_status(-1), DependencyFault),
    "NOT_FOUND": (_abort(grpc.StatusCode.NOT_FOUND), ResourceNotFound),
    "PERMISSION_DENIED": (_abort(grpc.StatusCode.PERMISSION_DENIED), AccessDenied),
    "INTERNAL": (_abort(grpc.StatusCode.INTERNAL), DependencyFault),
    "too long": (lambda _request, _context: plugin_pb2.PluginResponse(body=bytes(3 << 20)), DependencyFault),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(running: Running, case: str) -> None:
    running.program.answer, kind = REFUSALS[case]
    with pytest.raises(KbsError) as caught:
        ask(running.plugin())
    assert type(caught.value) is kind
    assert "CANARY" not in f"{caught.value}{caught.value.operator_detail}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("code", [0, 200, 204, 299])
def test_successes(running: Running, code: int) -> None:
    running.program.answer = _status(code)
    assert ask(running.plugin()) == b"CANARY"


def test_a_slow_program_is_an_outage(running: Running) -> None:
    free = threading.Event()
    running.program.answer = lambda _request, _context: free.wait(5) and plugin_pb2.PluginResponse()
    with pytest.raises(DependencyFault) as caught:
        ask(running.plugin(timeout_ms=150))
    free.set()
    assert "DEADLINE_EXCEEDED" in str(caught.value.operator_detail)


def test_nobody_there_is_an_outage(running: Running) -> None:
    with pytest.raises(DependencyFault):
        ask(running.plugin(endpoint="http://127.0.0.1:9", timeout_ms=500))


@pytest.mark.parametrize("segments", [("two", "a"), ("",), ("One",)], ids=["another", "empty", "other case"])
def test_an_unknown_backend(running: Running, segments: tuple[str, ...]) -> None:
    with pytest.raises(ResourceNotFound):
        ask(running.plugin(), *segments)
    assert running.program.seen == []


def test_methods_are_for_whom_the_settings_say(running: Running) -> None:
    guards = running.plugin().guards()
    assert {method for method, guard in guards.items() if guard.access is Access.TOKEN} == {"GET"}
    assert {guards[method].permission for method in ("POST", "PUT", "DELETE")} == {"plugin.admin"}


ONE = {"name": "one", "endpoint": "http://127.0.0.1:1"}
WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "none": ({}, "backends"),
    "empty": ({"backends": []}, "at least one"),
    "twice": ({"backends": [ONE, ONE]}, "name of its own"),
    "name with slash": ({"backends": [{**ONE, "name": "a/b"}]}, "without /"),
    "plain to another machine": ({"backends": [{**ONE, "endpoint": "http://x.example:1"}]}, "ca_cert_path"),
    "TLS without roots": ({"backends": [{**ONE, "endpoint": "https://x.example:1"}]}, "ca_cert_path"),
    "no port": ({"backends": [{**ONE, "endpoint": "https://x.example"}]}, "HOST:PORT"),
    "no scheme": ({"backends": [{**ONE, "endpoint": "x.example:1"}]}, "HOST:PORT"),
    "port that is none": ({"backends": [{**ONE, "endpoint": "http://127.0.0.1:x"}]}, "no address"),
    "roots that are absent": (
        {"backends": [{**ONE, "endpoint": "https://x.example:1", "ca_cert_path": "absent"}]},
        "No such file",
    ),
    "half a certificate": (
        {"backends": [{**ONE, "endpoint": "https://x:1", "ca_cert_path": "a", "client_cert_path": "b"}]},
        "go together",
    ),
    "no time": ({"backends": [{**ONE, "timeout_ms": 0}]}, "timeout_ms"),
    "tls_mode": ({"backends": [{**ONE, "tls_mode": "mutual"}]}, "tls_mode"),
    "method": ({"backends": [ONE], "guest_methods": ["PATCH"]}, "guest_methods"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path, case: str) -> None:
    options, words = WRONG[case]
    with pytest.raises(ConfigInvalid, match=words):
        make(tmp_path, options)
