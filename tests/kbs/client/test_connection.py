"""TLS and kept-alive connections against a real listener on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kbs.client.connection import Connection
from kbs.client.errors import ClientMisconfigured, Unreachable

# Real TLS stacks read the real clock: the certificates hold for as long as this code can matter.
_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> bytes:
    is_ca = subject == issuer
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_ca:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0

    def process_request(self, *args: object) -> None:
        self.connections += 1
        super().process_request(*args)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Set-Cookie", "ambient=1")
        body = self.headers.get("Cookie", "").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    ca, leaf, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (tmp_path / "ca.pem").write_bytes(_certificate("ca", "ca", ca, ca))
    (tmp_path / "other.pem").write_bytes(_certificate("ca", "ca", other, other))
    key = leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.pem").write_bytes(_certificate("broker", "ca", leaf, ca) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    listener = _Server(("127.0.0.1", 0), _Handler)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield listener
    listener.shutdown()
    listener.server_close()
    thread.join()


def connect(server: _Server, ca_file: Path, host: str = "127.0.0.1") -> Connection:
    return Connection(f"https://{host}:{server.server_port}/", ca_file=ca_file, user_agent="test", timeout=5)


@pytest.mark.server
@pytest.mark.enable_socket
def test_one_connection_serves_many_requests_and_no_cookie_is_kept(server: _Server, tmp_path: Path) -> None:
    with connect(server, tmp_path / "ca.pem") as connection:
        assert [connection.send("GET", "x").content for _ in range(5)] == [b""] * 5
        assert connection.send("GET", "x", headers={"Cookie": "own=2"}).content == b"own=2"
    assert server.connections == 1


@pytest.mark.server
@pytest.mark.enable_socket
@pytest.mark.parametrize(("ca_file", "host"), [("other.pem", "127.0.0.1"), ("ca.pem", "localhost")])
def test_another_root_or_another_name_is_not_trusted(server: _Server, tmp_path: Path, ca_file: str, host: str) -> None:
    with connect(server, tmp_path / ca_file, host) as connection, pytest.raises(Unreachable, match=r"(?i)certificate"):
        connection.send("GET", "x")


@pytest.mark.server
@pytest.mark.enable_socket
def test_a_token_that_http_does_not_carry_is_not_repeated(server: _Server, tmp_path: Path) -> None:
    with connect(server, tmp_path / "ca.pem") as connection, pytest.raises(ClientMisconfigured) as refused:
        connection.send("GET", "x", headers={"Authorization": "Bearer se\ncret"})
    assert "cret" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ClientMisconfigured, match=r"ca\.pem"):
        Connection("https://broker.test", ca_file=file, user_agent="test")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.test",
        "ftp://broker.test",
        "https://",
        "https://user:pw@broker.test",
        "https://b.test/?x=1",
        "https://b:x",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ClientMisconfigured):
        Connection(url, ca_file=None, user_agent="test")
