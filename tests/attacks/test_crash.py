"""kill -9 at random instants (F4): what was acknowledged is there, stores open again, the chain verifies."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.events import AdminRead
from kbs.audit.lines import records
from kbs.audit.log import AuditLog
from kbs.audit.verify import verify
from kbs.secret import Secret
from kbs.storage.handshakes import FileHandshakeStore
from kbs.storage.model import Claim
from kbs.storage.sealed import SealedStore, SealingKeys
from kbs.storage.sqlite import SqliteStore

FORK = multiprocessing.get_context("fork")
OPEN = -1  # told once the writer has its store
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEYS = SealingKeys([Secret(b"\x01" * 32)])
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
ROUNDS = 20
MANY = 1_000_000

# Each writer runs in a process of its own and acknowledges a number after the call that must be durable returned.
Acknowledge = Callable[[int], object]
Writer = Callable[[Path, int, Acknowledge], None]


def write_values(folder: Path, start: int, acknowledge: Acknowledge) -> None:
    store = SealedStore(SqliteStore(folder / "kv.db"), KEYS)
    acknowledge(OPEN)
    for number in range(start, start + MANY):
        store.put("ns", f"k{number % 7}", b"%d," % number * 2000, meta={"number": str(number)})
        acknowledge(number)


def claim_challenges(folder: Path, start: int, acknowledge: Acknowledge) -> None:
    store = FileHandshakeStore(folder / "handshakes", KEYS)
    acknowledge(OPEN)
    for number in range(start, start + MANY):
        store.claim(f"c{number}", b"b" * 32, NOW + timedelta(days=1), NOW)
        if number % 2:
            store.finish(f"c{number}", f"token {number}")
        acknowledge(number)


def append_records(folder: Path, start: int, acknowledge: Acknowledge) -> None:
    log = AuditLog(folder / "log", folder / "heads" / "head", KEY, origin="kbs", clock=lambda: NOW)
    acknowledge(OPEN)
    for number in range(start, start + MANY):
        log.append([AdminRead(decision=f"{number:032x}", actor="ann", what="x" * 3000)] * (number % 3 + 1))
        acknowledge(number)


def killed(folder: Path, writer: Writer, beside: int = 1) -> Iterator[list[int]]:
    """Run the writer, kill it at a random instant, again and again; the numbers acknowledged in each round."""
    instants = random.Random(20260615)
    start = 0
    for _ in range(ROUNDS):
        told, tell = os.pipe()
        children = [
            FORK.Process(
                target=writer,
                args=(folder, start + place * MANY, lambda n: os.write(tell, b"%d\n" % n)),  # noqa: B023
            )
            for place in range(beside)
        ]
        for child in children:
            child.start()
        os.close(tell)
        with os.fdopen(told, "rb") as acknowledgements:
            for _child in children:
                acknowledgements.readline()  # one is open; from the last on any instant will do
            time.sleep(instants.uniform(0, 0.02))
            for child in children:
                child.kill()
                child.join()
                assert child.exitcode == -signal.SIGKILL
            numbers = [int(line) for line in acknowledgements if int(line) != OPEN]
        yield numbers
        start = max([start, *(number % MANY for number in numbers)]) + 10


def test_no_acknowledged_value_is_lost_and_none_is_half(tmp_path: Path) -> None:
    total = 0
    for acknowledged in killed(tmp_path, write_values):
        with closing(SealedStore(SqliteStore(tmp_path / "kv.db"), KEYS)) as store:
            kept = {
                record.meta["number"]: record.value
                for entry in store.entries("ns")
                for version in store.history("ns", entry.key)
                if (record := store.get("ns", entry.key, version.version)) is not None
            }
        for number, value in kept.items():
            assert value == b"%d," % int(number) * 2000
        assert {str(number) for number in acknowledged} <= kept.keys()
        total += len(acknowledged)
    connection = sqlite3.connect(tmp_path / "kv.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert total > 0


def test_no_claim_is_given_twice(tmp_path: Path) -> None:
    total = 0
    for acknowledged in killed(tmp_path, claim_challenges):
        with closing(FileHandshakeStore(tmp_path / "handshakes", KEYS)) as store:
            for number in acknowledged:
                met = store.claim(f"c{number}", b"b" * 32, NOW + timedelta(days=1), NOW)
                # odd ones were finished; even ones were left by a process that is dead
                assert met is (Claim.FINISHED if number % 2 else Claim.SPENT)
                assert store.token(f"c{number}", NOW) == (f"token {number}" if number % 2 else None)
        total += len(acknowledged)
    assert total > 0


@pytest.mark.parametrize("beside", [1, 2])
def test_no_acknowledged_record_is_lost_and_the_chain_verifies(tmp_path: Path, beside: int) -> None:
    path, head_path = tmp_path / "log", tmp_path / "heads" / "head"
    seen: set[int] = set()
    for acknowledged in killed(tmp_path, append_records, beside):
        seen.update(acknowledged)
        report = verify(path, head_path, KEY.public_key())
        assert report.problems == ()
        assert report.signed is not None
        with closing(AuditLog(path, head_path, KEY, origin="kbs", clock=lambda: NOW)) as log:
            signed = [int(record["decision"], 16) for record in log.records()][: report.signed]
            assert set(acknowledged) <= set(signed)  # under the head that stood at the kill: no cut could hide them
            log.append([AdminRead(decision="f" * 32, actor="ann", what="after the crash")])
        report = verify(path, head_path, KEY.public_key())
        assert (report.ok, report.lines) == (True, report.signed)
    assert seen
    assert seen <= {int(record["decision"], 16) for record in records(path)}
