"""A shared log whose database does not stand still: set back, emptied, forked, edited; and the head outside of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit import postgres_tables as tables
from kbs.audit.acceptance import Accepted, accept
from kbs.audit.checkpoint import HeadSigner
from kbs.audit.events import AdminRead, Event
from kbs.audit.postgres import PostgresAuditLog
from kbs.audit.postgres_tables import find, last
from kbs.audit.postgres_verify import verify_shared
from kbs.audit.verify import VerificationReport
from kbs.errors import AuditUnavailable
from kbs.storage.postgres.database import Database, Limits

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ORIGIN = "kbs.example/audit"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def event(number: int) -> Event:
    return AdminRead(decision=f"{number:032x}", actor="ann", what=f"policy {number}")


@dataclass
class Shared:
    """One database and the machines of its brokers."""

    folder: Path
    database: Database
    open_database: Callable[..., Database]
    opened: list[PostgresAuditLog]

    def head(self, machine: str) -> Path:
        return self.folder / machine / "audit-head"

    def open(self, machine: str) -> PostgresAuditLog:
        database = self.open_database(connections=2, limits=Limits(rest=0.0, lock=0.3))
        log = PostgresAuditLog(database, self.head(machine), KEY, origin=ORIGIN, clock=lambda: NOW, alone=True)
        self.opened.append(log)
        return log

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.database.use(lambda db: db.execute(statement))  # noqa: B023

    def copy(self) -> None:
        """As a back-up is made."""
        self.run(
            "CREATE TABLE old_lines AS SELECT * FROM kbs_audit_lines",
            "CREATE TABLE old_tail AS SELECT * FROM kbs_audit_tail",
        )

    def set_back(self) -> None:
        """Put the copy back."""
        self.run(
            "DELETE FROM kbs_audit_lines",
            "INSERT INTO kbs_audit_lines SELECT * FROM old_lines",
            "DELETE FROM kbs_audit_tail",
            "INSERT INTO kbs_audit_tail SELECT * FROM old_tail",
        )

    def accept(self, machine: str) -> Accepted | None:
        return accept(
            self.database,
            self.head(machine),
            KEY,
            origin=ORIGIN,
            clock=lambda: NOW,
            actor="ann",
            decision="a" * 32,
        )

    def verify(self, *machines: str) -> VerificationReport:
        heads = {name: self.head(name) for name in machines}
        return verify_shared(self.database, heads, [KEY.public_key()], origin=ORIGIN)

    def codes(self, *machines: str) -> list[tuple[str, int | None]]:
        return [(problem.code, problem.line) for problem in self.verify(*machines).problems]


@pytest.fixture
def shared(tmp_path: Path, new_database: Callable[..., Database]) -> Iterator[Shared]:
    made = Shared(tmp_path, new_database(), new_database, [])
    yield made
    for log in made.opened:
        log.close()


def refused(act: Callable[[], object]) -> str:
    """What the operator is told; the peer learns nothing of it."""
    with pytest.raises(AuditUnavailable) as caught:
        act()
    assert str(caught.value) == "the audit log takes no records"
    return str(caught.value.operator_detail)


# --- a database that went back ----------------------------------------------------------------------------------------


def test_a_set_back_is_noticed_by_who_knows_more_and_stops_all(shared: Shared) -> None:
    knows, idle = shared.open("a"), shared.open("b")
    knows.append([event(0)])
    shared.copy()
    knows.append([event(1), event(2)])
    shared.set_back()
    assert "has 1 records, a head vouches for 3: it was set back" in refused(lambda: knows.append([event(3)]))
    for log in (knows, idle):
        for act in (lambda: log.append([event(4)]), log.check):  # noqa: B023
            said = refused(act)
            assert "it was set back" in said
            assert "kbs audit accept" in said
    assert "it was set back" in refused(lambda: shared.open("c"))
    assert shared.codes() == [("doubted", None)]
    assert len(last(shared.database, 10)) == 1


def test_it_is_noticed_after_all_brokers_ended(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    shared.copy()
    log.append([event(1)])
    log.close()
    shared.set_back()
    assert "a head vouches for 2" in refused(lambda: shared.open("a"))
    assert shared.codes("a") == [("head_rolled_back", None), ("cut", 2), ("doubted", None)]


def test_it_is_noticed_when_others_went_on_meanwhile(shared: Shared) -> None:
    """The log is longer than what is remembered, and another one: only the chain tells."""
    knows = shared.open("a")
    knows.append([event(0)])
    shared.copy()
    knows.append([event(1)])
    knows.look()
    shared.set_back()
    ignorant = shared.open("b")
    ignorant.append([event(number) for number in range(10, 15)])
    assert "is not the one whose head vouches for 2 records" in refused(knows.look)
    assert "is not the one" in refused(lambda: ignorant.append([event(20)]))
    assert "is not the one" in refused(lambda: knows.append([event(20)]))
    assert shared.codes("a") == [("root_mismatch", 2), ("doubted", None)]


def test_a_log_of_the_same_length_that_is_another_one_is_noticed(shared: Shared) -> None:
    knows = shared.open("a")
    knows.append([event(0)])
    shared.copy()
    knows.append([event(1)])
    shared.set_back()
    shared.open("b").append([event(2)])
    assert "another log" in refused(lambda: knows.append([event(3)]))


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_an_emptied_database_is_noticed(shared: Shared, restarted: bool) -> None:
    log = shared.open("a")
    log.append([event(0)])
    log.look()
    shared.run("DELETE FROM kbs_audit_lines", "DELETE FROM kbs_audit_tail")
    said = refused((lambda: shared.open("a")) if restarted else (lambda: log.append([event(1)])))
    assert "the log is gone, a head vouches for 1 records" in said
    shared.open("new")  # who remembers nothing begins one
    assert "it was set back" in refused(lambda: shared.open("a"))


def test_a_doubt_that_somebody_clears_comes_back(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    shared.copy()
    log.append([event(1)])
    shared.set_back()
    for _ in range(2):
        assert "it was set back" in refused(lambda: log.append([event(2)]))
        shared.run("UPDATE kbs_audit_tail SET doubt = NULL")
    assert len(last(shared.database, 10)) == 1


def test_records_beyond_a_tail_that_went_back_are_noticed_and_may_be_taken_in(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    shared.copy()
    log.append([event(1)])
    log.close()
    shared.run("DELETE FROM kbs_audit_tail", "INSERT INTO kbs_audit_tail SELECT * FROM old_tail")
    assert shared.codes() == [("inserted", 2)]
    assert "records beyond its tail" in refused(lambda: shared.open("b").append([event(2)]))
    taken = shared.accept("b")
    assert taken is not None
    assert taken.records == 3
    shared.open("a").append([event(3)])
    assert [record["kind"] for record in last(shared.database, 2)] == ["audit.accepted", "admin.read"]
    assert shared.verify("a").ok


def test_records_of_a_stranger_beyond_the_tail_are_not_taken_in(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    shared.run("INSERT INTO kbs_audit_lines VALUES (1, 'x', '{}')")
    assert "records beyond its tail" in refused(lambda: log.append([event(1)]))
    assert "line 2, beyond the tail" in refused(lambda: shared.accept("a"))


# --- an operator accepts ----------------------------------------------------------------------------------------------


def test_what_an_operator_accepts_all_brokers_follow(shared: Shared) -> None:
    knows, idle = shared.open("a"), shared.open("b")
    knows.append([event(0)])
    shared.copy()
    knows.append([event(1), event(2)])
    knows.look()
    shared.set_back()
    refused(lambda: knows.append([event(3)]))
    taken = shared.accept("operator")
    assert taken == Accepted("the log has 1 records, a head vouches for 3: it was set back", 2, 1)
    for log in (idle, knows):
        log.append([event(4)])
        log.look()
        log.check()
    (record,) = find(shared.database, "a" * 32)
    assert (record["kind"], record["actor"], record["generation"]) == ("audit.accepted", "ann", 1)
    assert record["doubt"] == taken.doubt
    report = shared.verify("a", "b")
    assert report.ok
    assert report.notes == ("an operator accepted a log that went back: lines [2]",)
    assert shared.accept("operator") is None
    shared.set_back()  # once accepted is not always accepted
    assert "generation 0, a head says 1" in refused(lambda: idle.append([event(5)]))
    knows.close()
    assert "generation 0, a head says 1" in refused(lambda: shared.open("a"))


def test_an_emptied_database_may_be_accepted(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    log.look()
    shared.run("DELETE FROM kbs_audit_lines", "DELETE FROM kbs_audit_tail")
    refused(lambda: log.append([event(1)]))
    assert shared.accept("a") == Accepted("the log was gone", 1, 1)
    log.append([event(2)])
    assert shared.verify().ok


def test_what_nobody_signed_is_not_accepted(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    shared.run("DELETE FROM kbs_audit_tail")
    assert "lines and no tail" in refused(lambda: shared.accept("a"))
    assert "lines and no tail" in refused(lambda: shared.open("b"))


# --- what others write into the tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE kbs_audit_tail SET head = replace(head, E'\\n2\\n', E'\\n1\\n')",
        "UPDATE kbs_audit_tail SET head = 'junk'",
        "UPDATE kbs_audit_tail SET roots = ''",
        "UPDATE kbs_audit_tail SET roots = set_byte(roots, 0, 255 - get_byte(roots, 0))",
    ],
    ids=["size", "junk", "no-roots", "other-roots"],
)
def test_a_tail_that_was_not_signed_is_refused(shared: Shared, tamper: str) -> None:
    log = shared.open("a")
    log.append([event(0), event(1)])
    shared.run(tamper)
    for act in (lambda: log.append([event(2)]), log.check, log.look, lambda: shared.open("b")):
        assert "not to be trusted" in refused(act)


def test_a_head_of_another_kind_of_log_or_key_is_refused(shared: Shared) -> None:
    shared.open("a").append([event(0)])
    for note in (
        HeadSigner(ORIGIN, KEY).sign(0, b"\x00" * 32),
        HeadSigner(ORIGIN, KEY).sign(0, b"\x00" * 32, ("last x", "generation 0")),
        HeadSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)).sign(0, b"\x00" * 32),
        b"junk",
        b"",
    ):
        shared.head("b").parent.mkdir(exist_ok=True)
        shared.head("b").write_bytes(note)
        assert "outside the database is not to be trusted" in refused(lambda: shared.open("b"))


@pytest.mark.parametrize(
    ("tamper", "code", "line"),
    [
        ("UPDATE kbs_audit_lines SET line = replace(line, 'policy 1', 'policy 9') WHERE n = 1", "edited", 2),
        ("DELETE FROM kbs_audit_lines WHERE n = 1", "deleted", 2),
        ("DELETE FROM kbs_audit_lines WHERE n = 3", "cut", 4),
        ("UPDATE kbs_audit_lines SET line = replace(line, 'policy 3', 'policy 9') WHERE n = 3", "root_mismatch", 4),
        ("UPDATE kbs_audit_lines SET decision = repeat('b', 32) WHERE n = 2", "edited", 3),
        ("INSERT INTO kbs_audit_lines VALUES (4, 'x', '{}')", "edited", 5),
        (
            "UPDATE kbs_audit_lines SET n = CASE n WHEN 1 THEN -1 ELSE 1 END WHERE n IN (1, 2);"
            "UPDATE kbs_audit_lines SET n = 2 WHERE n = -1",
            "reordered",
            2,
        ),
    ],
    ids=["edited", "deleted", "cut", "last", "misfiled", "inserted", "reordered"],
)
def test_verification_names_the_line(shared: Shared, tamper: str, code: str, line: int) -> None:
    shared.open("a").append([event(number) for number in range(4)])
    assert shared.verify().ok
    shared.run(*tamper.split(";"))
    assert (code, line) in shared.codes()


def test_a_batch_is_there_as_a_whole_or_not_at_all(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends between lines and tail."""
    log = shared.open("a")
    log.append([event(0)])
    cut = f"{tables.ADVANCE} RETURNING pg_terminate_backend(pg_backend_pid())"
    with monkeypatch.context() as patch:
        patch.setattr(tables, "ADVANCE", cut)
        refused(lambda: log.append([event(1), event(2)]))
    for _ in range(100):  # who lost a connection rests for a moment
        with suppress(AuditUnavailable):
            log.append([event(3)])
            break
        time.sleep(0.05)
    assert [int(record["decision"], 16) for record in log.records()] == [0, 3]
    assert shared.verify().ok


def test_who_cannot_get_at_the_tail_is_refused_in_time(shared: Shared, new_database: Callable[..., Database]) -> None:
    log = shared.open("a")
    with psycopg.connect(new_database()._dsn.reveal().decode()) as holder:
        holder.execute("SELECT FROM kbs_audit_tail FOR UPDATE")
        assert "lock timeout" in refused(lambda: log.append([event(0)]))
    log.append([event(1)])
    assert shared.verify().ok


# --- the head outside -------------------------------------------------------------------------------------------------


def test_one_process_of_a_machine_keeps_the_head_and_another_takes_over(shared: Shared) -> None:
    first, second = shared.open("a"), shared.open("a")
    second.append([event(0)])
    second.look()
    before = shared.head("a").read_bytes()
    first.look()
    after = shared.head("a").read_bytes()
    assert (before.split(b"\n")[1], after.split(b"\n")[1]) == (b"0", b"1")
    assert shared.head("a").stat().st_mode & 0o777 == 0o600
    first.close()
    second.append([event(1)])
    second.look()
    assert shared.head("a").read_bytes().split(b"\n")[1] == b"2"
    assert shared.verify("a").ok


def test_closing_keeps_the_last_head(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    log.close()
    assert shared.head("a").read_bytes().split(b"\n")[1] == b"1"


def test_who_cannot_keep_the_head_appends_nothing_until_it_can(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    log = shared.open("a")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    log.append([event(0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left" in refused(log.look)
        assert "No space left" in refused(lambda: shared.open("b"))
    assert "No space left" in refused(lambda: log.append([event(1)]))
    assert "No space left" in refused(log.check)
    log.look()
    log.append([event(2)])
    assert shared.verify("a").ok


def test_a_link_in_the_place_of_the_head_is_refused(shared: Shared, tmp_path: Path) -> None:
    shared.head("a").parent.mkdir()
    shared.head("a").symlink_to(tmp_path / "elsewhere")
    refused(lambda: shared.open("a"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_heads_of_a_generation_are_bound_to_the_last_line(shared: Shared) -> None:
    log = shared.open("a")
    log.append([event(0)])
    log.look()
    note = shared.head("a").read_text().split("\n")
    assert note[0] == ORIGIN
    (record,) = log.records()
    assert note[3].startswith("last ")
    assert note[4] == "generation 0"
    log.append([event(1)])
    assert json.loads(json.dumps(list(log.records())[1]))["prev"] == note[3].removeprefix("last ")
    assert record["n"] == 0


@pytest.mark.parametrize("times", [1, 2])
def test_who_loses_the_tail_before_it_commits_begins_again_once(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As when it stands still for too long; the server has rolled back then whatever was written."""
    log = shared.open("a")
    log.append([event(0)])
    left = times

    def clock() -> datetime:
        nonlocal left
        if left:
            left -= 1
            shared.run("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state LIKE '%transaction'")
        return NOW

    monkeypatch.setattr(log, "_clock", clock)
    log._in_company = 10
    if times == 1:
        log.append([event(1)])
    else:
        assert "was taken away" in refused(lambda: log.append([event(1)]))
        log.append([event(1)])
    assert [record["decision"] for record in log.records()] == [event(0).decision, event(1).decision]
    assert shared.codes("a") == []
