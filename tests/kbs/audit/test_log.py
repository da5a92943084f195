"""The log: one chain over threads, processes, forks and crashes; refused when it is not what its head vouches for."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.checkpoint import read_head
from kbs.audit.events import AdminRead, Event
from kbs.audit.log import AuditLog, new_decision
from kbs.audit.merkle import Frontier
from kbs.audit.verify import verify
from kbs.errors import AuditUnavailable
from kbs.secret import Secret

FORK = multiprocessing.get_context("fork")
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ORIGIN = "kbs.example/audit"

Open = Callable[[], AuditLog]


def event(number: int) -> Event:
    return AdminRead(decision=f"{number:032x}", actor="ann", what=f"policy {number}")


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def assert_sound(path: Path, head_path: Path, count: int) -> None:
    report = verify(path, head_path, KEY.public_key(), origin=ORIGIN)
    assert report.problems == ()
    assert (report.ok, report.lines, report.signed) == (True, count, count)


def test_lines_are_chained_and_the_head_names_them(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()
    assert read_head(head_path.read_bytes(), [KEY.public_key()], ORIGIN).size == 0
    log.append([event(0)])
    log.append([event(1), event(2)])
    log.append([])
    lines = lines_of(path)
    records = [json.loads(line) for line in lines]
    assert [record["n"] for record in records] == [0, 1, 2]
    assert [record["prev"] for record in records] == ["0" * 64, *(sha256(line).hexdigest() for line in lines[:2])]
    assert {record["time"] for record in records} == {"2026-06-15T12:00:00.000000Z"}
    head = read_head(head_path.read_bytes(), [KEY.public_key()], ORIGIN)
    assert (head.size, head.root) == (3, Frontier(lines).root())
    assert list(log.records(1)) == records[1:]
    assert log.find(f"{2:032x}") == [records[2]]


def test_a_log_is_continued(path: Path, head_path: Path, open_log: Open) -> None:
    for number in range(12):  # the size gets a second digit on the way
        log = open_log()
        log.append([event(number)])
        log.close()
    assert_sound(path, head_path, 12)


def test_files_are_private_under_any_umask(path: Path, head_path: Path, open_log: Open) -> None:
    before = os.umask(0)
    try:
        open_log().append([event(0)])
    finally:
        os.umask(before)
    assert [stat.S_IMODE(found.stat().st_mode) for found in (path, head_path)] == [0o600, 0o600]
    assert [stat.S_IMODE(found.parent.stat().st_mode) for found in (path, head_path)] == [0o700, 0o700]


def test_an_event_that_cannot_be_recorded_takes_its_batch_with_it(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()
    bad = AdminRead(decision="0" * 32, actor="ann", what=Secret(b"canary"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        log.append([event(0), bad])
    assert path.read_bytes() == b""
    log.append([event(1)])
    assert_sound(path, head_path, 1)


def test_threads_share_a_log(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()

    def write() -> None:
        for number in range(10):
            log.append([event(number)])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_sound(path, head_path, 40)


@pytest.mark.parametrize("inherited", [True, False])
def test_processes_share_a_log(path: Path, head_path: Path, open_log: Open, inherited: bool) -> None:
    """Four processes, fifty appends each, beside the parent; the log opened before the fork or by each."""
    parent = open_log()
    parent.append([event(0)])

    def write() -> None:
        log = parent if inherited else open_log()
        for number in range(50):
            log.append([event(number)])

    children = [FORK.Process(target=write) for _ in range(4)]
    for child in children:
        child.start()
    for number in range(20):
        parent.append([event(number)])
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert_sound(path, head_path, 221)


def test_a_fork_during_an_append_locks_nobody_out(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.append([event(0)])

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(5):
        child = FORK.Process(target=lambda: log.append([event(1)]))
        child.start()
        child.join(30)
        assert child.exitcode == 0
    stop.set()
    thread.join()
    assert_sound(path, head_path, len(lines_of(path)))


@pytest.mark.parametrize("torn", [b"{", b'{"n":2,"time":"2026', b"\x00" * 5000, b"x" * 200])
def test_half_a_line_is_cut_off_and_marked_at_start(path: Path, head_path: Path, open_log: Open, torn: bytes) -> None:
    log = open_log()
    log.append([event(0), event(1)])
    log.close()
    with path.open("ab") as file:
        file.write(torn)
    log = open_log()
    log.append([event(3)])
    records = list(log.records())
    assert [record["kind"] for record in records] == ["admin.read", "admin.read", "audit.repaired", "admin.read"]
    assert records[2]["dropped_bytes"] == len(torn)
    assert_sound(path, head_path, 4)


def test_half_a_line_of_another_process_is_repaired_by_the_next_append(
    path: Path, head_path: Path, open_log: Open
) -> None:
    log = open_log()
    log.append([event(0)])
    with path.open("ab") as file:
        file.write(b'{"n":1,"ti')
    log.append([event(2)])
    assert [record["kind"] for record in log.records()] == ["admin.read", "audit.repaired", "admin.read"]
    assert_sound(path, head_path, 3)


def test_lines_that_no_head_names_yet_are_taken_in(path: Path, head_path: Path, open_log: Open) -> None:
    """Killed between the lines and the head: the lines are chained, so they count."""
    log = open_log()
    log.append([event(0)])
    before = head_path.read_bytes()
    log.append([event(1)])
    log.close()
    head_path.write_bytes(before)
    report = verify(path, head_path, KEY.public_key())
    assert report.ok
    assert "not in the signed head yet" in report.notes[0]
    open_log().append([event(2)])
    assert_sound(path, head_path, 3)


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (lambda lines: lines[:-1], "the end is missing"),
        (lambda lines: [], "the end is missing"),
        (lambda lines: [lines[0], lines[1].replace(b"policy 1", b"policy 9"), lines[2]], "line 3 does not continue"),
        (lambda lines: [*lines[:2], lines[2].replace(b"policy 2", b"policy 9")], "changed"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1 does not continue"),
        (lambda lines: [*lines, lines[2]], "line 4 does not continue"),
    ],
)
def test_a_tampered_log_is_not_opened_and_not_touched(
    path: Path, head_path: Path, open_log: Open, tamper: Callable[[list[bytes]], list[bytes]], says: str
) -> None:
    log = open_log()
    log.append([event(number) for number in range(3)])
    log.close()
    path.write_bytes(b"".join(line + b"\n" for line in tamper(lines_of(path))))
    kept = path.read_bytes(), head_path.read_bytes()
    with pytest.raises(AuditUnavailable) as caught:
        open_log()
    assert says in str(caught.value.operator_detail)
    assert str(path) not in str(caught.value)
    assert (path.read_bytes(), head_path.read_bytes()) == kept


def test_a_log_without_its_head_is_not_opened(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()
    log.append([event(0)])
    log.close()
    head = head_path.read_bytes()
    for content in (None, b"", b"junk", head[:-9], head.replace(b"\n1\n", b"\n0\n")):
        head_path.unlink(missing_ok=True)
        if content is not None:
            head_path.write_bytes(content)
        with pytest.raises(AuditUnavailable) as caught:
            open_log()
        assert "head" in str(caught.value.operator_detail)
    head_path.write_bytes(head)
    open_log().append([event(1)])
    assert_sound(path, head_path, 2)


def test_a_changed_key_needs_the_old_one_once(path: Path, head_path: Path, open_log: Open) -> None:
    log = open_log()
    log.append([event(0)])
    log.close()
    new = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
    with pytest.raises(AuditUnavailable):
        AuditLog(path, head_path, new, origin=ORIGIN, clock=log._clock)
    AuditLog(path, head_path, new, origin=ORIGIN, clock=log._clock, retired=[KEY.public_key()]).close()
    AuditLog(path, head_path, new, origin=ORIGIN, clock=log._clock).close()
    with pytest.raises(AuditUnavailable):
        AuditLog(path, head_path, new, origin="another", clock=log._clock)


@pytest.mark.parametrize("which", ["log", "head"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_not_there_any_more_takes_no_records(
    path: Path, head_path: Path, open_log: Open, which: str, how: str
) -> None:
    log = open_log()
    log.append([event(0)])
    target = path if which == "log" else head_path
    aside = target.with_name("aside")
    target.rename(aside)
    if how == "replaced":
        target.write_bytes(aside.read_bytes())
    with pytest.raises(AuditUnavailable) as caught:
        log.append([event(1)])
    assert how in str(caught.value.operator_detail)
    aside.replace(target)
    log.append([event(2)])
    assert_sound(path, head_path, 2)


def test_lines_of_a_stranger_stop_the_log(path: Path, open_log: Open) -> None:
    log = open_log()
    log.append([event(0)])
    whole = path.read_bytes()
    for content, says in ((whole + b"{}\n", "was not written by this service"), (b"", "became shorter")):
        path.write_bytes(content)
        with pytest.raises(AuditUnavailable) as caught:
            log.append([event(1)])
        assert says in str(caught.value.operator_detail)
        assert path.read_bytes() == content


@pytest.mark.parametrize("failing", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_no_trace_and_recovery_is_automatic(
    path: Path, head_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    log = open_log()
    log.append([event(0)])
    before = path.read_bytes()
    real = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= len(before) + 50:
            raise OSError(code, os.strerror(code))
        return real(descriptor, bytes(data)[:50], offset)

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, half if failing == "pwrite" else fail)
        for _ in range(2):
            with pytest.raises(AuditUnavailable) as caught:
                log.append([event(1)])
            assert os.strerror(code) in str(caught.value.operator_detail)
            assert path.read_bytes() == before
    log.append([event(2)])
    assert_sound(path, head_path, 2)


def test_a_head_that_cannot_be_written_acknowledges_nothing(
    path: Path, head_path: Path, open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    log.append([event(0)])
    real = os.pwrite

    def fail_at_zero(descriptor: int, data: bytes, offset: int) -> int:
        if offset == 0:
            raise OSError(errno.EIO, "I/O error")
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail_at_zero)
        with pytest.raises(AuditUnavailable):
            log.append([event(1)])
    log.append([event(2)])
    assert_sound(path, head_path, 3)


def test_a_closed_log_takes_no_records(open_log: Open) -> None:
    log = open_log()
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable):
        log.append([event(0)])


def test_a_link_in_the_place_of_a_file_is_refused(path: Path, head_path: Path, tmp_path: Path, open_log: Open) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditUnavailable):
        open_log()
    assert not (tmp_path / "elsewhere").exists()


def test_decision_ids_are_32_hex_digits() -> None:
    first, second = new_decision(), new_decision()
    assert first != second
    assert len(bytes.fromhex(first)) == 16
