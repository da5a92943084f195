"""What processes of `kbs serve` read when they begin: counted, since a long audit log would show only in seconds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from kbs.app import open_audit
from kbs.audit.events import AdminRead
from kbs.config import load
from tests.fakes.running_broker import RunningBroker

pytestmark = [pytest.mark.server, pytest.mark.enable_socket]

_RECORDS: Final = 200
_COUNTING: Final = """
import os, sys
from kbs.cli import main

def pread(descriptor, size, offset):
    found = whole(descriptor, size, offset)
    name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    os.write(counts, f"{os.getpid()} {name} {offset} {len(found)}\\n".encode())
    return found

counts = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
whole, os.pread = os.pread, pread
main()
"""


class Read(NamedTuple):
    """One `pread`: by whom, of which file, from where, how much."""

    process: int
    name: str
    offset: int
    octets: int


class Counted(RunningBroker):
    """One worker, and a log that has records before it begins."""

    def __init__(self, folder: Path) -> None:
        self.counts = folder / "counts"
        self.path = folder / "data/audit/log.jsonl"
        super().__init__(folder / "data", workers=1, program=[sys.executable, "-c", _COUNTING, str(self.counts)])

    def _kbs(self, *arguments: str) -> None:
        super()._kbs(*arguments)
        with closing(open_audit(self.data, load(self.data, {}))) as log:
            log.append([AdminRead(decision=f"{n:032x}", actor="ann", what="x" * 1000) for n in range(_RECORDS)])
        self.old = self.path.stat().st_size

    def read(self, name: str) -> list[Read]:
        """What was read of files whose names end so."""
        found = [line.split() for line in self.counts.read_text().splitlines()]
        return [
            Read(int(process), file, int(offset), int(octets))
            for process, file, offset, octets in found
            if file.endswith(name)
        ]

    def next_worker(self, before: int) -> int:
        """Another worker than that, which answers."""
        deadline = time.monotonic() + 20
        while self.workers() == [] or before in self.workers():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        self._wait_until_it_answers()
        (worker,) = self.workers()
        return worker


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    running = Counted(tmp_path_factory.mktemp("starting"))
    yield running
    running.stop()


def test_a_worker_that_begins_reads_what_was_written_since_and_before_a_handshake_needs_it(counted: Counted) -> None:
    master, (first,) = counted.process.pid, counted.workers()
    with counted.guest() as guest:
        guest.attest()
    new = counted.path.stat().st_size
    os.kill(first, signal.SIGKILL)
    second = counted.next_worker(first)
    assert [read for read in counted.read("00000001.log") if read.process == second]
    known = counted.read("log.jsonl")[-1].offset
    assert counted.old < known < new

    counted.process.send_signal(signal.SIGHUP)
    third = counted.next_worker(second)
    with counted.guest() as guest:
        guest.attest()
    assert counted.read("00000001.log")[-1].process == third
    assert counted.read("log.jsonl") == [
        Read(master, "log.jsonl", 0, counted.old),
        Read(second, "log.jsonl", known, new - known),
        Read(master, "log.jsonl", known, new - known),  # whether a worker would come up, and what that one knows
    ]
