"""The load: one process, N clients in a closed loop, each on its own kept connection. Prints one JSON document.

A client does what a guest does: auth, attest with sample evidence bound to a key and the nonce, GET of the resource.
Every `verify`-th answer is opened with the client's private key; one that does not open is an error. Works against any
server that speaks protocol 0.4.0, has the resource, and admits sample evidence.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import ssl
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import uvloop

from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol import jwe

STEPS = ("auth", "attest", "resource")
_KEYS = 32  # pairs made before the clock starts, so that key generation is not measured
_AUTH = b'{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512"]}}'


@dataclass
class Tally:
    """What the clients saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in (*STEPS, "total")})
    errors: dict[str, int] = field(default_factory=dict)
    opened: int = 0

    def error(self, text: str) -> None:
        """Count one failed handshake by its cause."""
        self.errors[text] = self.errors.get(text, 0) + 1


class Connection(asyncio.Protocol):
    """One kept HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiter: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Complete the answer once head and body are there."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or self._waiter is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 : lower.find(b"\r\n", at) if lower.find(b"\r\n", at) > 0 else None])
        if len(rest) >= length:
            self._buffer = rest[length:]
            waiter, self._waiter = self._waiter, None
            waiter.set_result((int(head[9:12]), head, rest[:length]))

    def connection_lost(self, _: Exception | None) -> None:
        """Wake whoever waits."""
        if self._waiter is not None:
            self._waiter.set_exception(ConnectionError("the server closed the connection"))
            self._waiter = None

    async def request(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Send one request; status, head and body of its answer."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._waiter


@dataclass(frozen=True)
class Target:
    """The server and the resource."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    path: str
    secret: bytes | None

    def post(self, endpoint: str, body: bytes, cookie: bytes = b"") -> bytes:
        """The octets of one POST."""
        cookies = b"Cookie: " + cookie + b"\r\n" if cookie else b""
        return (
            (
                f"POST /kbs/v0/{endpoint} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n"
            ).encode()
            + cookies
            + b"\r\n"
            + body
        )

    def get(self, cookie: bytes) -> bytes:
        """The octets of the resource GET."""
        return f"GET /kbs/v0/{self.path} HTTP/1.1\r\nHost: {self.host}\r\nCookie: ".encode() + cookie + b"\r\n\r\n"


async def handshake(connection: Connection, target: Target, pair: TeeKeyPair, tally: Tally, *, check: bool) -> None:
    """One full handshake; its times or its error go into the tally."""
    clock = time.perf_counter
    start = clock()
    status, head, body = await connection.request(target.post("auth", _AUTH))
    after_auth = clock()
    if status != 200:
        return tally.error(f"auth {status} {body[:120]!r}")
    nonce = json.loads(body)["nonce"]
    cookie = _cookie(head)
    attestation = _attestation(nonce, pair)
    before_attest = clock()
    status, _, body = await connection.request(target.post("attest", attestation, cookie))
    after_attest = clock()
    if status != 200:
        return tally.error(f"attest {status} {body[:120]!r}")
    status, _, body = await connection.request(target.get(cookie))
    end = clock()
    if status != 200:
        return tally.error(f"resource {status} {body[:120]!r}")
    if check:
        plain = jwe.open_sealed(pair.private_key, body)
        if target.secret is not None and plain != target.secret:
            return tally.error("the resource is not the expected one")
        tally.opened += 1
    for step, seconds in zip(
        (*STEPS, "total"),
        (after_auth - start, after_attest - before_attest, end - after_attest, end - start),
        strict=True,
    ):
        tally.seconds[step].append(seconds)
    return None


def _cookie(head: bytes) -> bytes:
    at = head.lower().find(b"set-cookie:") + 11
    return head[at : head.find(b";", at)].strip()


def _attestation(nonce: str, pair: TeeKeyPair) -> bytes:
    key = dict(sorted(pair.public.members.items()))
    bound = {"additional-evidence": "", "nonce": nonce, "tee-pubkey": key}
    digest = hashlib.sha384(json.dumps(bound, separators=(",", ":")).encode()).digest()
    evidence = {"svn": "1", "report_data": base64.b64encode(digest).decode()}
    body = {
        "init-data": None,
        "runtime-data": {"nonce": nonce, "tee-pubkey": key},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    return json.dumps(body).encode()


async def run(target: Target, clients: int, seconds: float, verify: int) -> dict[str, object]:
    """Drive the server; what goes into the report."""
    loop = asyncio.get_running_loop()
    pairs = [TeeKeyPair.generate(KeyKind.EC_P256) for _ in range(_KEYS)]
    tally = Tally()
    end = loop.time() + seconds

    async def client(number: int) -> None:
        keys = cycle(pairs[number % _KEYS :] + pairs[: number % _KEYS])
        connection: Connection | None = None
        count = 0
        while loop.time() < end:
            count += 1
            try:
                if connection is None:
                    _, connection = await loop.create_connection(Connection, target.host, target.port, ssl=target.tls)
                await handshake(connection, target, next(keys), tally, check=count % verify == 1)
            except OSError as err:
                tally.error(f"connection: {type(err).__name__}")
                connection = None

    await asyncio.gather(*(client(number) for number in range(clients)))
    return {
        "clients": clients,
        "seconds": seconds,
        "handshakes": len(tally.seconds["total"]),
        "opened": tally.opened,
        "errors": tally.errors,
        "steps_ms": {step: _percentiles(found) for step, found in tally.seconds.items()},
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    found = sorted(seconds)
    if not found:
        return {}
    return {
        name: round(found[min(len(found) - 1, int(len(found) * share))] * 1000, 3)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }


def main() -> None:
    """Command line; see `__main__` for who calls it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", default="resource/default/bench/secret")
    parser.add_argument("--secret", default=None, help="hex of the expected resource")
    parser.add_argument("--ca-file", default=None)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--verify", type=int, default=50)
    options = parser.parse_args()
    address = urlsplit(options.url)
    tls = ssl.create_default_context(cafile=options.ca_file) if address.scheme == "https" else None
    target = Target(
        host=address.hostname or "127.0.0.1",
        port=address.port or (443 if tls else 80),
        tls=tls,
        path=options.path,
        secret=None if options.secret is None else bytes.fromhex(options.secret),
    )
    found = uvloop.run(run(target, options.clients, options.seconds, options.verify))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
