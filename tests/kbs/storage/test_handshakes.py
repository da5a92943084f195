"""What `FileHandshakeStore` promises beyond the contract: other and dead processes, restarts, sealed tokens."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable
from kbs.secret import Secret
from kbs.storage.handshakes import FileHandshakeStore
from kbs.storage.model import Claim
from kbs.storage.sealed import SealingKeys

FORK = multiprocessing.get_context("fork")
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
SECOND = timedelta(seconds=1)
BODY = b"\x01" * 32
KEYS = SealingKeys([Secret(b"\x01" * 32)])


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., FileHandshakeStore]]:
    made: list[FileHandshakeStore] = []
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")

    def build(keys: SealingKeys = KEYS, **sizes: int) -> FileHandshakeStore:
        made.append(FileHandshakeStore(tmp_path / "store", keys, boot_id_path=boot, **sizes))
        return made[-1]

    yield build
    for store in made:
        store.close()


def rush(path: Path, boot: Path, ids: list[str], claimed: Path) -> None:
    store = FileHandshakeStore(path, KEYS, boot_id_path=boot)
    won = [name for name in ids if store.claim(name, BODY, LATER, NOW) is Claim.CLAIMED]
    claimed.write_text("\n".join(won))
    store.close()


def test_a_hundred_claims_over_processes_and_one_winner(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one")
    ids = [f"c{number}" for number in range(25)]
    children = [
        FORK.Process(target=rush, args=(tmp_path / "s", boot, ids, tmp_path / f"won{number}")) for number in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    won = [name for number in range(4) for name in (tmp_path / f"won{number}").read_text().split()]
    assert sorted(won) == sorted(ids)


def test_workers_share_epoch_claims_and_tokens(open_store: Callable[..., FileHandshakeStore]) -> None:
    one, two = open_store(), open_store()
    assert one.epoch == two.epoch
    assert one.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    assert two.claim("c", BODY, LATER, NOW) is Claim.IN_PROGRESS
    one.finish("c", "token")
    assert two.claim("c", BODY, LATER, NOW) is Claim.FINISHED
    assert two.token("c", NOW) == "token"


def test_a_claim_is_finished_for_the_body_that_claimed_it_last(open_store: Callable[..., FileHandshakeStore]) -> None:
    one, two = open_store(), open_store()
    other = b"\x02" * 32
    assert one.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    two.release("c")
    assert two.claim("c", other, LATER, NOW) is Claim.CLAIMED
    one.finish("c", "token")
    for store in (one, two, open_store()):
        assert store.claim("c", BODY, LATER, NOW) is Claim.SPENT
        assert store.claim("c", other, LATER, NOW) is Claim.FINISHED


@pytest.mark.parametrize("end", ["finish", "refuse", "release", "sweep"])
def test_what_is_kept_of_an_unanswered_claim_goes_with_it(
    open_store: Callable[..., FileHandshakeStore], end: str
) -> None:
    one, two = open_store(), open_store()
    for store, name, expires in ((one, "mine", LATER), (two, "of another", LATER + SECOND)):
        assert one.claim(name, BODY, expires, NOW) is Claim.CLAIMED
        assert name.encode() in one._mine
        if end == "finish":
            store.finish(name, "token")
        elif end == "refuse":
            store.refuse(name)
        elif end == "release":
            store.release(name)
        else:
            assert one.sweep(expires) == 1
        assert one.token(name, NOW) == ("token" if end == "finish" else None)
        assert not one._mine


def test_a_claim_of_a_process_that_died_is_spent(open_store: Callable[..., FileHandshakeStore]) -> None:
    store = open_store()

    def claim_and_die() -> None:
        store.claim("c", BODY, LATER, NOW)
        os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=claim_and_die)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    for again in (store, open_store()):
        assert again.claim("c", BODY, LATER, NOW) is Claim.SPENT
    assert store.token("c", NOW) is None


def test_a_claim_of_a_living_process_is_in_progress(open_store: Callable[..., FileHandshakeStore]) -> None:
    store = open_store()
    store.claim("c", BODY, LATER, NOW)

    def meet() -> None:
        assert store.claim("c", BODY, LATER, NOW) is Claim.IN_PROGRESS

    child = FORK.Process(target=meet)
    child.start()
    child.join(30)
    assert child.exitcode == 0


def test_a_process_id_used_again_is_another_process(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path
) -> None:
    store = open_store()
    store.claim("c", BODY, LATER, NOW)
    me = f"{os.getpid()}:".encode()
    (segment,) = (tmp_path / "store").glob("*.log")
    written = segment.read_bytes()
    started = written[written.rindex(me) + len(me) :]
    segment.write_bytes(written.replace(me + started, me + b"1".rjust(len(started), b"0")))
    assert open_store().claim("c", BODY, LATER, NOW) is Claim.SPENT


def test_a_restart_of_the_machine_voids_everything(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path
) -> None:
    store = open_store()
    store.claim("c", BODY, LATER, NOW)
    store.finish("c", "token")
    store.sweep(NOW)
    store.close()
    same = open_store()
    assert same.epoch == store.epoch
    assert same.token("c", NOW) == "token"
    same.close()
    (tmp_path / "boot_id").write_text("second\n")
    other = open_store()
    assert other.epoch != store.epoch
    assert other.token("c", NOW) is None
    assert other.claim("c", BODY, LATER, NOW) is Claim.CLAIMED


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_without_a_boot_id_nothing_is_opened(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path, content: bytes | None
) -> None:
    boot = tmp_path / "boot_id"
    boot.unlink()
    if content is not None:
        boot.write_bytes(content)
    with pytest.raises(StorageUnavailable):
        open_store()


def test_tokens_are_sealed_and_bound_to_their_challenge(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path
) -> None:
    store = open_store()
    for name in ("a", "b"):
        store.claim(name, BODY, LATER, NOW)
        store.finish(name, f"canary-{name}")
    folder = tmp_path / "store"
    assert not any(b"canary" in found.read_bytes() for found in folder.iterdir())
    (segment,) = folder.glob("*.log")
    records = segment.read_bytes()
    one, two = (records.rindex(name + b"\1" * 32) + 1 for name in (b"a", b"b"))  # payloads of the two endings
    size = len(records) - two
    segment.write_bytes(records[:two] + records[one : one + size])
    store = open_store()
    assert store.token("a", NOW) == "canary-a"
    assert store.token("b", NOW) is None


def test_a_retired_key_opens_and_an_unknown_one_does_not(open_store: Callable[..., FileHandshakeStore]) -> None:
    store = open_store()
    store.claim("c", BODY, LATER, NOW)
    store.finish("c", "token")
    new = Secret(b"\x02" * 32)
    assert open_store(SealingKeys([new, Secret(b"\x01" * 32)])).token("c", NOW) == "token"
    assert open_store(SealingKeys([new])).token("c", NOW) is None


def test_files_are_private(open_store: Callable[..., FileHandshakeStore], tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_store().claim("c", BODY, LATER, NOW)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(found.stat().st_mode) for found in (tmp_path / "store").iterdir()} == {0o600}


def test_a_sweep_goes_in_steps(open_store: Callable[..., FileHandshakeStore]) -> None:
    store = open_store(sweep_step=3)
    for number in range(10):
        store.claim(f"c{number}", BODY, LATER + timedelta(days=number == 4), NOW)
    assert store.sweep(LATER) == 9
    assert store.claim("c4", BODY, LATER, NOW) is Claim.IN_PROGRESS


def test_a_look_lets_others_in_between_its_steps_and_leaves_nothing_to_read(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, looking = open_store(segment_size=500), open_store(segment_size=500, look_step=4)
    for number in range(10):
        other.claim(f"c{number}", BODY, LATER, NOW)
        other.finish(f"c{number}", f"token {number}")
    late = ["late one", "late two"]

    def pause(_: float) -> None:
        with (tmp_path / "store" / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not held, or this raises
        if late:
            assert other.claim(late.pop(), BODY, LATER, NOW) is Claim.CLAIMED

    monkeypatch.setattr("kbs.storage.handshakes.sleep", pause)
    looking.look()
    assert not late
    with looking._journal:
        assert looking._catch_up() == 0
    for name in ("late one", "late two"):
        assert looking.claim(name, BODY, LATER, NOW) is Claim.IN_PROGRESS
    assert [looking.token(f"c{number}", NOW) for number in range(10)] == [f"token {number}" for number in range(10)]


def test_segments_go_once_everything_in_them_has_expired(
    open_store: Callable[..., FileHandshakeStore], tmp_path: Path
) -> None:
    store, other = open_store(segment_size=2000), open_store(segment_size=2000)
    for number in range(100):
        store.claim(f"c{number}", BODY, LATER + number * SECOND, NOW)
        other.finish(f"c{number}", f"token {number}")
    many = len([*(tmp_path / "store").glob("*.log")])
    assert many > 5
    assert store.sweep(LATER + 50 * SECOND) == 51
    assert 1 < len([*(tmp_path / "store").glob("*.log")]) < many
    late = open_store(segment_size=2000)
    for one in (store, other, late):
        for number in range(51, 100):
            assert one.token(f"c{number}", NOW) == f"token {number}"
        for number in range(51):
            assert one.claim(f"c{number}", BODY, LATER + number * SECOND, NOW) is not Claim.CLAIMED
    assert store.sweep(LATER + 100 * SECOND) == 49
    assert len([*(tmp_path / "store").glob("*.log")]) == 1
    for one in (store, open_store()):
        assert one.claim("c0", BODY, LATER + 99 * SECOND, NOW) is Claim.SPENT
        assert one.claim("new", BODY, LATER + 100 * SECOND, NOW) is not Claim.SPENT


def test_a_process_that_slept_while_others_went_on_knows_what_they_know(
    open_store: Callable[..., FileHandshakeStore],
) -> None:
    sleeper, other = open_store(segment_size=1000), open_store(segment_size=1000)
    sleeper.claim("early", BODY, LATER, NOW)
    for number in range(50):
        other.claim(f"c{number}", BODY, LATER + SECOND, NOW)
        other.refuse(f"c{number}")
    other.refuse("early")
    assert other.sweep(LATER + SECOND) == 51
    for number in range(50):
        other.claim(f"d{number}", BODY, LATER + 2 * SECOND, NOW)
    assert sleeper.claim("early", BODY, LATER, NOW) is Claim.SPENT
    assert sleeper.claim("c7", BODY, LATER + SECOND, NOW) is Claim.SPENT
    assert sleeper.claim("d7", BODY, LATER + 2 * SECOND, NOW) is Claim.IN_PROGRESS
    sleeper.release("d7")
    assert other.claim("d7", BODY, LATER + 2 * SECOND, NOW) is Claim.CLAIMED


def test_a_forked_process_goes_on_by_itself(open_store: Callable[..., FileHandshakeStore]) -> None:
    """Parent and child hold the lock against each other, and the child knows what was claimed before."""
    store = open_store()
    store.claim("before", BODY, LATER, NOW)
    done = threading.Event()

    def hammer() -> None:
        number = 0
        while not done.is_set():
            store.claim(f"p{number}", BODY, LATER, NOW)
            number += 1

    def use() -> None:
        assert store.claim("before", BODY, LATER, NOW) is Claim.IN_PROGRESS
        for number in range(200):
            assert store.claim(f"k{number}", BODY, LATER, NOW) is Claim.CLAIMED
            store.finish(f"k{number}", "token")

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        child = FORK.Process(target=use)
        child.start()
        child.join(30)
        assert child.exitcode == 0
        for number in range(200):
            assert store.token(f"k{number}", NOW) == "token"
            assert store.claim(f"k{number}", BODY, LATER, NOW) is Claim.FINISHED
    finally:
        done.set()
        thread.join()


def test_a_time_without_a_zone_is_refused(open_store: Callable[..., FileHandshakeStore]) -> None:
    with pytest.raises(TypeError):
        open_store().claim("c", BODY, LATER.replace(tzinfo=None), NOW)
