"""What a worker holds of large bodies: slow senders of many do not take its memory, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import LargeBodiesFull
from kbs.web.asgi import BrokerAsgi
from kbs.web.body import LARGE_BODIES, SMALL, HeldBody, LargeBodies
from tests.fakes.broker import BrokerUnderTest, Edge

MIB = 1 << 20


def test_small_bodies_are_not_counted_and_large_ones_as_a_whole() -> None:
    bodies = LargeBodies(MIB)
    for size, held in ((SMALL, 0), (SMALL + 1, SMALL + 1)):
        body = bodies.hold()
        body.grow(size)
        assert bodies.held == held
        body.close()
    assert bodies.held == 0


def test_a_length_alone_takes_no_room() -> None:
    bodies = LargeBodies(MIB)
    for _ in range(100):
        bodies.hold().check_declared(str(MIB))
    assert bodies.held == 0
    bodies.hold().grow(SMALL + 1)
    for length in (str(MIB), str(MIB - SMALL)):
        with pytest.raises(LargeBodiesFull):
            bodies.hold().check_declared(length)
    for fits in (None, "0", str(SMALL), str(MIB - SMALL - 1)):
        bodies.hold().check_declared(fits)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, MIB)), max_size=40))
def test_the_sum_never_passes_the_limit_and_comes_back_to_nothing(steps: list[tuple[int, int]]) -> None:
    bodies = LargeBodies(MIB)
    held: list[HeldBody] = [bodies.hold() for _ in range(5)]
    for index, size in steps:
        before = bodies.held
        try:
            held[index].grow(size)
        except LargeBodiesFull:
            assert bodies.held == before
        assert bodies.held == sum(each.size for each in held) <= MIB
    for each in held:
        each.close()
        each.close()
    assert bodies.held == 0


class Peer:
    """Sends parts of a body when told, to an ASGI application."""

    def __init__(self, app: BrokerAsgi, path: str, headers: dict[str, str]) -> None:
        self.parts: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.sent: list[MutableMapping[str, Any]] = []
        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": path.encode(),
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 8080),
            "client": ("192.0.2.1", 1),
            "http_version": "1.1",
            "scheme": "http",
        }
        self.task = asyncio.ensure_future(app(scope, self.parts.get, self._send))

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    async def give(self, octets: bytes, *, more: bool = True) -> None:
        self.parts.put_nowait({"type": "http.request", "body": octets, "more_body": more})
        for _ in range(3):
            await asyncio.sleep(0)

    def hang_up(self) -> None:
        self.parts.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, dict[bytes, bytes], Any]:
        await self.task
        start, body = self.sent
        return start["status"], dict(start["headers"]), json.loads(body["body"])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerUnderTest]:
    made = BrokerUnderTest(tmp_path / "data", Edge.ASGI)
    yield made
    made.close()


def test_many_slow_large_senders(broker: BrokerUnderTest) -> None:
    app, part, path = broker.broker.asgi(), bytes(4 * MIB), "/kbs/v0/attest"

    async def scene() -> None:
        slow = [Peer(app, path, {"content-length": str(8 * MIB)}) for _ in range(40)]
        for each in slow:
            await each.give(part)
        refused = [each for each in slow if each.task.done() or each.sent]
        assert app.bodies.held == LARGE_BODIES == (40 - len(refused)) * len(part)
        for each in refused:
            each.hang_up()
            status, headers, body = await each.answer()
            assert (status, body["reason"], headers[b"connection"]) == (503, "large_bodies_full", b"close")
            assert int(headers[b"retry-after"]) > 0
        for more in ({"content-length": str(MIB)}, {}):  # told before the body is read; or as it grows
            late = Peer(app, path, more)
            await late.give(bytes(SMALL + 1))
            late.hang_up()
            assert (await late.answer())[0] == 503
        packed = Peer(app, path, {"content-encoding": "gzip"})
        await packed.give(gzip.compress(bytes(SMALL + 1)), more=False)
        assert (await packed.answer())[0] == 503
        ordinary = Peer(app, "/kbs/v0/auth", {})
        await ordinary.give(b'{"version":"0.4.0","tee":"sample","extra-params":{}}', more=False)
        assert (await ordinary.answer())[0] == 200
        for each in slow:
            if each not in refused:
                each.hang_up()
                assert (await each.answer())[0] == 400
        assert app.bodies.held == 0
        again = Peer(app, path, {"content-length": str(8 * MIB)})
        await again.give(bytes(8 * MIB), more=False)
        assert (await again.answer())[0] == 400  # no cookie, no evidence; read as a whole
        assert app.bodies.held == 0

    asyncio.run(scene())
