"""What a broker's process does to itself before it has secrets, and what a worker does beside requests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from kbs.app import Broker
from kbs.errors import StorageUnavailable
from kbs.server import _look_after

_SCRIPT = """
import ctypes, os, resource
from kbs.server import keep_memory_private
dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
before = dumpable()
keep_memory_private()
child = os.fork()
if child == 0:
    os._exit(dumpable())
print(before, dumpable(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_memory_is_private_in_workers_too() -> None:
    """In a process of its own: there is no way back."""
    found = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["1", "0", "0", "0", "0"]


class _Over(Exception):
    """The end of a loop that has none."""


def test_each_second_has_all_duties_though_some_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def failing(name: str) -> Callable[[], None]:
        def do() -> None:
            done.append(name)
            raise StorageUnavailable("down")

        return do

    def sleep(_: float) -> None:
        if len(done) == 8:
            raise _Over

    broker = SimpleNamespace(
        metrics=SimpleNamespace(flush=failing("metrics")),
        warm=failing("rules"),
        audit=SimpleNamespace(look=failing("audit log")),
        handshakes=SimpleNamespace(look=failing("handshakes")),
    )
    monkeypatch.setattr("kbs.server.time.sleep", sleep)
    with pytest.raises(_Over):
        _look_after(cast(Broker, broker))
    assert done == ["metrics", "rules", "audit log", "handshakes"] * 2
