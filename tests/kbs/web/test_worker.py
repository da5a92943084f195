"""How a worker begins, and how it does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from kbs.errors import StorageUnavailable
from kbs.web.worker import BrokerWorker


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
    monkeypatch.setattr("kbs.web.worker.SWEEP_SECONDS", 0.001)
    down = [StorageUnavailable("the store is unavailable", operator_detail="db: refused") for _ in range(3)]
    worker = _worker([*down, None])
    worker.load_wsgi()
    worker.loop.close()
    assert worker.asgi == "the application"
    assert len(worker.notes) == 4  # its arbiter knows that it lives
    assert [record.members["problem"] for record in caplog.records] == ["db: refused"]  # type: ignore[attr-defined]


def test_a_worker_that_waits_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbs.web.worker.SWEEP_SECONDS", 0.05)
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
