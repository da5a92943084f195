"""Every audit log, in files or in a database: one chain over threads, processes, forks and crashes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.audit.events import AdminRead, Event
from kbs.audit.log import AuditLog
from kbs.audit.model import Log
from kbs.audit.postgres import PostgresAuditLog
from kbs.audit.postgres_tables import lines_between, snapshot
from kbs.audit.postgres_verify import verify_shared
from kbs.audit.verify import VerificationReport, verify
from kbs.errors import AuditUnavailable
from kbs.secret import Secret
from kbs.storage.postgres.database import Database

FORK = multiprocessing.get_context("fork")
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ORIGIN = "kbs.example/audit"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """Where one log is: opened as often as one likes, read and verified without opening it."""

    open: Callable[[], Log]
    lines: Callable[[], list[bytes]]
    verify: Callable[[], VerificationReport]

    def assert_sound(self, count: int) -> None:
        report = self.verify()
        assert report.problems == ()
        assert (report.ok, report.lines, report.signed) == (True, count, count)


@pytest.fixture(params=["files", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    opened: list[Log] = []
    if request.param == "files":
        path, head = tmp_path / "audit" / "log", tmp_path / "heads" / "head"

        def in_files() -> Log:
            opened.append(AuditLog(path, head, KEY, origin=ORIGIN, clock=lambda: NOW))
            return opened[-1]

        yield Place(
            in_files,
            lambda: path.read_bytes().split(b"\n")[:-1],
            lambda: verify(path, head, KEY.public_key(), origin=ORIGIN),
        )
    else:
        new_database = cast(Callable[[], Database], request.getfixturevalue("new_database"))
        beside = new_database()
        heads = iter(range(1_000_000))

        def in_tables() -> Log:
            """Each on a machine of its own."""
            head = tmp_path / f"head-{os.getpid()}-{next(heads)}" / "head"
            opened.append(PostgresAuditLog(new_database(), head, KEY, origin=ORIGIN, clock=lambda: NOW))
            return opened[-1]

        yield Place(
            in_tables,
            lambda: list(lines_between(beside, 0, snapshot(beside).size)),
            lambda: verify_shared(beside, {}, [KEY.public_key()], origin=ORIGIN),
        )
    for log in opened:
        log.close()


def event(number: int) -> Event:
    return AdminRead(decision=f"{number:032x}", actor="ann", what=f"policy {number}")


def test_lines_are_chained_and_the_head_names_them(place: Place) -> None:
    log = place.open()
    log.append([event(0)])
    log.append([event(1), event(2)])
    log.append([])
    lines = place.lines()
    records = [json.loads(line) for line in lines]
    assert [record["n"] for record in records] == [0, 1, 2]
    assert [record["prev"] for record in records] == ["0" * 64, *(sha256(line).hexdigest() for line in lines[:2])]
    assert {record["time"] for record in records} == {"2026-06-15T12:00:00.000000Z"}
    place.assert_sound(3)
    assert list(log.records(1)) == records[1:]
    assert log.find(f"{2:032x}") == [records[2]]
    assert log.find("f" * 32) == []


def test_a_log_is_continued(place: Place) -> None:
    for number in range(12):
        with closing(place.open()) as log:
            log.append([event(number)])
    place.assert_sound(12)


def test_an_event_that_cannot_be_recorded_takes_its_batch_with_it(place: Place) -> None:
    log = place.open()
    bad = AdminRead(decision="0" * 32, actor="ann", what=Secret(b"canary"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        log.append([event(0), bad])
    assert place.lines() == []
    log.append([event(1)])
    place.assert_sound(1)


def test_what_is_deferred_is_signed_by_write_head(place: Place) -> None:
    log = place.open()
    log.append([event(0)], defer_head=True)
    log.write_head()
    place.assert_sound(1)


def test_every_replica_finds_what_any_of_them_recorded(place: Place) -> None:
    one, two = place.open(), place.open()
    one.append([event(1), event(2)])
    two.append([event(1)])
    for log in (one, two):
        assert [record["n"] for record in log.find(f"{1:032x}")] == [0, 2]
        assert [record["n"] for record in log.records()] == [0, 1, 2]
        log.look()
        log.check()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.booleans()), max_size=8))
def test_batches_of_several_writers_stay_whole_and_in_order(place: Place, batches: list[tuple[int, int, bool]]) -> None:
    writers = [place.open() for _ in range(3)]
    before = len(place.lines())
    for at, (writer, count, looks) in enumerate(batches):
        writers[writer].append([event(at * 10 + each) for each in range(count)])
        if looks:
            writers[(writer + 1) % 3].look()
    wanted = [at * 10 + each for at, (_, count, _) in enumerate(batches) for each in range(count)]
    assert [int(json.loads(line)["decision"], 16) for line in place.lines()[before:]] == wanted
    for each in writers:
        each.close()
    place.assert_sound(before + len(wanted))


def test_threads_share_a_log(place: Place) -> None:
    log = place.open()

    def write() -> None:
        for number in range(10):
            log.append([event(number)])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    place.assert_sound(40)


@pytest.mark.parametrize("inherited", [True, False], ids=["inherited", "own"])
def test_processes_share_a_log(place: Place, inherited: bool) -> None:
    parent = place.open()
    parent.append([event(0)])

    def write() -> None:
        log = parent if inherited else place.open()
        for number in range(20):
            log.append([event(number), event(number)])

    children = [FORK.Process(target=write) for _ in range(3)]
    for child in children:
        child.start()
    for number in range(10):
        parent.append([event(number)])
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 3
    place.assert_sound(131)


def test_a_fork_during_an_append_locks_nobody_out(place: Place) -> None:
    log = place.open()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.001):
            log.append([event(0)])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3):
            child = FORK.Process(target=lambda: log.append([event(1)]))
            child.start()
            child.join(30)
            assert child.exitcode == 0
    finally:
        stop.set()
        thread.join()
    place.assert_sound(len(place.lines()))


def test_a_closed_log_takes_no_records(place: Place) -> None:
    log = place.open()
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable):
        log.append([event(0)])
    with pytest.raises(AuditUnavailable):
        log.check()
    assert place.lines() == []


def test_what_was_acknowledged_before_kill_9_is_signed(place: Place) -> None:
    """Three at random instants, each time two writers, and the survivors go on."""
    instants = random.Random(20260615)
    place.open().append([event(0)])

    def write(tell: int, start: int) -> None:
        log = place.open()
        for number in range(start, start + 100_000):
            log.append([event(number)] * 3)
            os.write(tell, b"%d\n" % number)

    for round_ in range(3):
        told, tell = os.pipe()
        children = [FORK.Process(target=write, args=(tell, (round_ * 2 + at + 1) * 100_000)) for at in range(2)]
        for child in children:
            child.start()
        os.close(tell)
        with os.fdopen(told, "rb") as acknowledgements:
            acknowledged = [int(acknowledgements.readline())]
            time.sleep(instants.uniform(0, 0.03))
            for child in children:
                child.kill()
                child.join()
                assert child.exitcode == -signal.SIGKILL
            acknowledged += [int(line) for line in acknowledgements]
        report = place.verify()
        assert report.problems == ()
        assert report.signed is not None
        signed = [int(json.loads(line)["decision"], 16) for line in place.lines()[: report.signed]]
        assert {signed.count(number) for number in acknowledged} == {3}
        with closing(place.open()) as log:
            log.append([event(1)])
    place.assert_sound(len(place.lines()))
