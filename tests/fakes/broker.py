"""A whole broker in this process, behind both of its edges: Flask as WSGI, and the ASGI application with its fast path.

`call` sends one request exactly as given and returns the answer; nothing is normalised on the way and no socket is
opened. The clock stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import httpx
from flask import Flask

from kbs.admin import data_directory
from kbs.admin.admin_tokens import AdminTokenMint, AdminTokenSettings
from kbs.admin.authorization import Roles
from kbs.app import Broker, build
from kbs.client.guest import GuestClient
from kbs.client.tee_keys import TeeKeyPair
from kbs.config import load
from kbs.protocol import base64url
from kbs.tokens.keys import load_signing_key
from kbs.web.asgi import BrokerAsgi

START: Final = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
GUEST_PORT: Final = 8080
ADMIN_PORT: Final = 8081
METRICS_PORT: Final = 8082
PEER: Final = "192.0.2.7"
TEE_KEY: Final = TeeKeyPair.generate()
PREFIX: Final = "https://github.com/confidential-containers/kbs/errors/"
FIRST_MESSAGE: Final = b'{"version":"0.4.0","tee":"sample","extra-params":""}'
POLICIES: Final = Path(__file__).parents[2] / "policies"

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Edge(StrEnum):
    """The two ways in."""

    FLASK = "flask"
    ASGI = "asgi"


class StoppedClock:
    """A clock that tests move."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it, also backwards."""
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header that may occur once."""
        found = self.all(name)
        assert len(found) <= 1, (name, found)
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for each, value in self.headers if each == name.lower()]

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def name(self) -> str:
        """Of a problem: the `type` without its prefix."""
        found: str = self.json["type"]
        assert found.startswith(PREFIX)
        return found.removeprefix(PREFIX)

    @property
    def cookie(self) -> str:
        """The value of `kbs-session-id` in the one `Set-Cookie`."""
        header = self.header("set-cookie")
        assert header is not None
        return header.partition(";")[0].removeprefix("kbs-session-id=")


@dataclass(frozen=True, slots=True)
class Request:
    """Arguments of one `call`.

    chunks: the body as it comes in, without a declared length. declared: another `Content-Length` than the body's.
    """

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    chunks: Sequence[bytes] | None = None
    cut: bool = False
    declared: int | None = None
    port: int = GUEST_PORT
    peer: str = PEER

    def header_list(self) -> list[tuple[str, str]]:
        """Headers as they go on the wire, framing included."""
        given = list(self.headers.items()) if isinstance(self.headers, Mapping) else list(self.headers)
        if self.chunks is not None:
            return [*given, ("transfer-encoding", "chunked")]
        length = len(self.body) if self.declared is None else self.declared
        return [*given, ("content-length", str(length))] if length or self.method in ("POST", "PUT") else given


class _Chunks(io.RawIOBase):
    """A WSGI input whose body ends where the chunks do, or breaks there."""

    def __init__(self, chunks: Sequence[bytes], *, cut: bool) -> None:
        self._rest = [chunk for chunk in chunks if chunk]
        self._cut = cut

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            if self._cut:
                raise ConnectionResetError
            return 0
        chunk = self._rest.pop(0)
        taken = chunk[: len(buffer)]
        if len(taken) < len(chunk):
            self._rest.insert(0, chunk[len(taken) :])
        buffer[: len(taken)] = taken
        return len(taken)


class BrokerUnderTest:
    """A broker on a data directory of its own, asked through one edge.

    Args:
        settings: variables as in the environment, e.g. `{"KBS__STORAGE__KIND": "sqlite"}`.
        own_keys: make them afresh; otherwise all brokers of a test run have the same, which saves time.
    """

    def __init__(
        self,
        data: Path,
        edge: Edge,
        *,
        settings: Mapping[str, str] | None = None,
        clock: StoppedClock | None = None,
        own_keys: bool = False,
    ) -> None:
        self.data = data
        self.edge = edge
        self.clock = clock or StoppedClock()
        self.settings = {"KBS__STORAGE__KIND": "memory", "KBS__ENDORSEMENTS__NETWORK": "false", **(settings or {})}
        if own_keys:
            _make(data)
        elif not data.exists():
            for name, (mode, content) in _directory().items():
                (data / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (data / name).touch(mode=mode)
                (data / name).write_bytes(content)
        self.runner = asyncio.Runner()
        self.broker: Broker
        self._flask: Flask
        self._asgi: BrokerAsgi
        self._start()

    def _start(self) -> None:
        self.broker = build(self.data, load(self.data, self.settings), clock=self.clock)
        self._flask = self.broker.flask()
        self._asgi = self.broker.asgi()

    def restart(self, settings: Mapping[str, str] | None = None) -> None:
        """Stop and start again on the same data directory."""
        self.broker.close()
        self.settings |= settings or {}
        self._start()

    def close(self) -> None:
        """Stop."""
        self.runner.close()
        self.broker.close()

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(self, method: str, target: str, headers: Headers = (), body: bytes = b"", **more: Any) -> Answer:
        """Send one request; `more` as in `Request`."""
        return self.send(Request(method, target, headers, body, **more))

    def send(self, request: Request) -> Answer:
        """Send one request."""
        if self.edge is Edge.FLASK:
            return self._wsgi_call(request)
        return self.runner.run(self._asgi_call(request))

    def send_all(self, requests: Sequence[Request]) -> list[Answer]:
        """Send requests at the same time."""
        if self.edge is Edge.FLASK:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(self._wsgi_call, requests))

        async def gather() -> list[Answer]:
            return await asyncio.gather(*(self._asgi_call(request) for request in requests))

        return self.runner.run(gather())

    def _wsgi_call(self, request: Request) -> Answer:
        raw_path, _, query = request.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(raw_path.encode("latin-1")).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": request.target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(request.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": request.peer,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        chunks = [request.body] if request.chunks is None else request.chunks
        environ["wsgi.input"] = io.BufferedReader(_Chunks(chunks, cut=request.cut))
        for name, value in request.header_list():
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            started.append((status, headers))

        parts = self._flask.wsgi_app(environ, start_response)
        body = b"".join(parts)
        close = getattr(parts, "close", None)
        if close is not None:
            close()
        ((status, headers),) = started
        return Answer(int(status.split()[0]), tuple((name.lower(), value) for name, value in headers), body)

    async def _asgi_call(self, request: Request) -> Answer:
        raw_path, _, query = request.target.encode("latin-1").partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "https",
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in request.header_list()],
            "client": (request.peer, 40_000),
            "server": ("127.0.0.1", request.port),
        }
        chunks = [request.body] if request.chunks is None else list(request.chunks)
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": request.cut or at + 1 < len(chunks)}
            for at, chunk in enumerate(chunks)
        ] or [{"type": "http.request", "body": b"", "more_body": request.cut}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._asgi(scope, receive, send)
        start, *rest = sent
        assert start["type"] == "http.response.start"
        assert [each.get("more_body", False) for each in rest] == [True] * (len(rest) - 1) + [False]
        headers = tuple((name.decode(), value.decode()) for name, value in start["headers"])
        return Answer(start["status"], headers, b"".join(each.get("body", b"") for each in rest))

    # --- a guest ------------------------------------------------------------------------------------------------------

    def guest(self, **arguments: Any) -> GuestClient:
        """A guest that attests with the software TEE."""
        arguments = {"key": TEE_KEY, **arguments}
        return GuestClient("https://kbs.test", transport=_Transport(self), **arguments)

    def attested(self, **arguments: Any) -> GuestClient:
        """A guest whose handshake is finished."""
        guest = self.guest(**arguments)
        guest.attest()
        return guest

    def handshake(self, **arguments: Any) -> Handshake:
        """An open handshake with the body that would finish it."""
        guest = self.guest(**arguments)
        body = guest.attestation_for(guest.challenge())
        assert guest.cookie is not None
        return Handshake(self, guest, guest.cookie, body)

    # --- administrators -----------------------------------------------------------------------------------------------

    @property
    def admin_token(self) -> str:
        """The one that `kbs init` makes."""
        return (self.data / "admin-token").read_text().strip()

    def token_for(self, role: str, *, scope: Sequence[str] | None = None, audience: str | None = None) -> str:
        """A fresh admin token, from the data directory's key."""
        settings = AdminTokenSettings() if audience is None else AdminTokenSettings(audience=audience)
        mint = AdminTokenMint(load_signing_key(self.data / "keys/admin.pem"), settings, Roles(), self.clock)
        return mint.mint("tester", role, None, scope).text

    def admin(
        self, method: str, path: str, body: bytes = b"", *, token: str | None = None, headers: Headers = (), **more: Any
    ) -> Answer:
        """A request to `/kbs/v0/<path>` as an administrator."""
        given = headers.items() if isinstance(headers, Mapping) else headers
        return self.call(method, f"/kbs/v0/{path}", [*given, bearer(token or self.admin_token)], body, **more)

    def put_secret(self, path: str = "default/key/1", value: bytes = b"a secret") -> None:
        """Write a resource."""
        answer = self.admin("POST", f"resource/{path}", value)
        assert answer.status == 200, answer.body

    def approve_sample(self) -> None:
        """Register what the software TEE claims, so that it is affirming."""
        values = {"launch_digest": ["abcde"], "svn": ["1"], "major_version": 1, "minimum_minor_version": 4}
        answer = self.admin("POST", "reference-value", reference_message(values))
        assert answer.status == 200, answer.body

    def use_policy(self, name: str) -> None:
        """Make one of our resource policies active: `allow-all`, `deny-all`, `sample-demo`, `affirming`."""
        text = (POLICIES / "resource" / f"{name}.rego").read_bytes()
        answer = self.admin("POST", "resource-policy", policy_upload(text))
        assert answer.status == 200, answer.body

    def audit_records(self) -> list[dict[str, Any]]:
        """Every record in the audit log."""
        text = (self.data / "audit/log.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


@dataclass
class Handshake:
    """A challenge and the answer to it, to be sent, kept or spoilt."""

    broker: BrokerUnderTest
    guest: GuestClient
    cookie: str
    body: bytes = field(repr=False)

    def request(self, *, body: bytes | None = None, cookie: str | None = None) -> Request:
        """`POST attest` with these parts, or others."""
        used = self.cookie if cookie is None else cookie
        return Request("POST", "/kbs/v0/attest", session(used), self.body if body is None else body)

    def attest(self, *, body: bytes | None = None, cookie: str | None = None) -> Answer:
        """Send it."""
        return self.broker.send(self.request(body=body, cookie=cookie))

    def changed(self, **changes: Any) -> bytes:
        """The body with members replaced: `nonce`, `tee_pubkey`, `primary_evidence`, `additional_evidence`,
        `init_data`."""
        document = json.loads(self.body)
        for name, value in changes.items():
            match name:
                case "nonce" | "tee_pubkey":
                    document["runtime-data"][name.replace("_", "-")] = value
                case "init_data":
                    document["init-data"] = value
                case _:
                    document["tee-evidence"][name] = value
        return json.dumps(document).encode()


class _Transport(httpx.BaseTransport):
    """httpx onto `BrokerUnderTest.call`."""

    def __init__(self, broker: BrokerUnderTest) -> None:
        self._broker = broker

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        framing = ("host", "content-length", "transfer-encoding", "connection")
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in framing]
        target = request.url.raw_path.decode("ascii")
        answer = self._broker.call(request.method, target, headers, request.read())
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)


def _make(data: Path) -> None:
    data_directory.make(
        data,
        names=(),
        tees=("snp",),
        insecure_sample=True,
        insecure_http=False,
        token_lifetime=timedelta(hours=24),
        now=START,
    )


@cache
def _directory() -> dict[str, tuple[int, bytes]]:
    """The files of a fresh data directory: modes and contents."""
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        _make(data)
        files = [path for path in data.rglob("*") if path.is_file()]
        return {str(path.relative_to(data)): (path.stat().st_mode & 0o777, path.read_bytes()) for path in files}


def bearer(token: str) -> tuple[str, str]:
    """The `Authorization` header of a token."""
    return ("Authorization", f"Bearer {token}")


def session(cookie: str) -> dict[str, str]:
    """The `Cookie` header of a session."""
    return {"Cookie": f"kbs-session-id={cookie}"}


def reference_message(values: Mapping[str, Any]) -> bytes:
    """An RVPS message of type `sample` (KBS protocol 13.3)."""
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return json.dumps({"version": "0.1.0", "type": "sample", "payload": payload}).encode()


def policy_upload(text: bytes, **members: Any) -> bytes:
    """Body of a policy upload, as the field's client sends it."""
    return json.dumps({**members, "policy": base64url.encode(text).decode()}).encode()
