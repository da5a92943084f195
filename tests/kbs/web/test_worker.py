"""Deadlines of a connection, with a transport and a clock of our own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from kbs.errors import StorageUnavailable
from kbs.web.worker import UNREAD_SECONDS, BrokerProtocol, BrokerWorker


class Transport:
    """Holds so many octets that the peer has not read."""

    def __init__(self) -> None:
        self.unread = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture(params=[False, True], ids=["open", "closing"])
def connection(request: pytest.FixtureRequest, transport: Transport) -> Any:
    """One with an answer under way; or closed on our side, which waits for the peer to read too."""
    made = BrokerProtocol.__new__(BrokerProtocol)
    made._idle_since = None
    members = {
        "transport": transport,
        "_closed": request.param,
        "_unread": 0,
        "_unread_deadline": 0.0,
        "_phase": None,
        "_deadline": 0.0,
        "_body_receiver": SimpleNamespace(_complete=True),
        "_current_request": object(),
        "req_count": 2,
    }
    for name, value in members.items():
        setattr(made, name, value)
    return made


def sweep(connection: Any, seconds: float, *, start: float = 100.0) -> float:
    """Once a second, as the worker does; when it ends."""
    for second in range(int(seconds)):
        connection.check(start + second)
    return start + int(seconds)


def test_an_answer_that_nobody_reads_does_not_hold_the_connection(connection: Any, transport: Transport) -> None:
    transport.unread = 70_000
    now = sweep(connection, UNREAD_SECONDS - 2)
    assert not transport.aborted
    sweep(connection, 4, start=now)
    assert transport.aborted


def test_a_slow_reader_may_take_its_time(connection: Any, transport: Transport) -> None:
    now = 100.0
    for unread in range(400_000, 0, -50_000):
        transport.unread = unread
        now = sweep(connection, UNREAD_SECONDS - 2, start=now)
    transport.unread = 0
    sweep(connection, 3 * UNREAD_SECONDS, start=now)
    assert not transport.aborted


def _worker(problems: Sequence[Exception | None]) -> Any:
    """One that meets these problems, one each time that it tries to begin."""

    left = [*problems]

    def wsgi() -> object:
        problem = left.pop(0)
        if problem is not None:
            raise problem
        return "the application"

    made = BrokerWorker.__new__(BrokerWorker)
    notes: list[int] = []
    members = {
        "alive": True,
        "ppid": os.getppid(),
        "app": SimpleNamespace(wsgi=wsgi),
        "loop": asyncio.new_event_loop(),
        "notify": lambda: notes.append(1),
        "notes": notes,
        "_told": asyncio.Event(),
    }
    for name, value in members.items():
        setattr(made, name, value)
    return made


def test_a_worker_waits_for_a_database_that_is_down(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails to begin would take all others along."""
    monkeypatch.setattr("kbs.web.worker._SWEEP_SECONDS", 0.001)
    down = [StorageUnavailable("the store is unavailable", operator_detail="db: refused") for _ in range(3)]
    worker = _worker([*down, None])
    worker.load_wsgi()
    worker.loop.close()
    assert worker.asgi == "the application"
    assert len(worker.notes) == 4  # its arbiter knows that it lives
    assert [record.members["problem"] for record in caplog.records] == ["db: refused"]  # type: ignore[attr-defined]


def test_a_worker_that_waits_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbs.web.worker._SWEEP_SECONDS", 0.05)
    worker = _worker([StorageUnavailable("the store is unavailable")] * 1000)
    worker.loop.call_later(0.01, worker.handle_exit_signal)
    with pytest.raises(SystemExit) as ended:
        worker.load_wsgi()
    worker.loop.close()
    assert ended.value.code == 0


def test_a_bug_ends_a_worker_that_begins() -> None:
    worker = _worker([TypeError()])
    with pytest.raises(TypeError):
        worker.load_wsgi()
    worker.loop.close()
