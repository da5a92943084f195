"""What strangers can make the audit log hold, and what they cannot keep out of it (threat-model P-AUD-1, P-DOS-1)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from kbs.handshake.service import Handshakes
from tests.fakes.broker import BrokerUnderTest, Edge, bearer

LONG = "a" * 60_000


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/kbs/v0/resource/{LONG}"),
        ("DELETE", f"/kbs/v0/resource/{LONG}"),
        ("GET", f"/kbs/v0/reference-value/{LONG}"),
    ],
)
def test_a_long_path_is_cut_in_the_record(broker: BrokerUnderTest, method: str, target: str) -> None:
    size = (broker.data / "audit/log.jsonl").stat().st_size
    assert broker.call(method, target, [bearer("x.y.z")]).status == 401
    assert (broker.data / "audit/log.jsonl").stat().st_size - size < 2_000
    record = broker.audit_records()[-1]
    assert record["path"].endswith("]")
    assert "[cut: 6" in record["path"]


def test_a_path_that_a_resource_may_have_is_recorded_whole(broker: BrokerUnderTest) -> None:
    path = "/".join(letter * 255 for letter in "abc")
    assert broker.call("GET", f"/kbs/v0/resource/{path}", [bearer("x.y.z")]).status == 401
    assert broker.audit_records()[-1]["path"] == path


def test_a_peer_that_hangs_up_leaves_its_record(
    tmp_path: Path, shared_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence that is judged in a thread: the answer goes nowhere, the record and the challenge's end stay."""
    broker = BrokerUnderTest(tmp_path / "data", Edge.ASGI)
    judging, go_on = threading.Event(), threading.Event()
    real = Handshakes.judge

    def slow(self: Handshakes, admitted: Any) -> Any:
        judging.set()
        assert go_on.wait(10)
        return real(self, admitted)

    monkeypatch.setattr(Handshakes, "blocks", lambda *_: True)
    monkeypatch.setattr(Handshakes, "judge", slow)
    handshake = broker.handshake()

    async def hang_up() -> None:
        asking = asyncio.create_task(broker._asgi_call(handshake.request()))
        await asyncio.to_thread(judging.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()
        for _ in range(200):
            if any(record["kind"] == "evidence.accepted" for record in broker.audit_records()):
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)

    broker.runner.run(hang_up())
    assert [record["kind"] for record in broker.audit_records()].count("evidence.accepted") == 1
    again = handshake.attest()
    assert again.status == 200  # it is finished, not in progress for ever
    assert [record["kind"] for record in broker.audit_records()].count("evidence.accepted") == 1
    broker.close()
