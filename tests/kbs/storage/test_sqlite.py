"""What `SqliteStore` promises beyond the contract: modes, formats, other processes, forks, damaged rows."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.storage import database
from kbs.storage.raw import DAMAGED
from kbs.storage.sqlite import FORMAT, SqliteStore

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store" / "kv.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(path)
    yield made
    made.close()


def in_child(work: Callable[[], object]) -> None:
    """Run in a forked process; a failed assertion there fails here."""
    child = FORK.Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == 0


def edit(path: Path, statement: str, *arguments: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, arguments).rowcount > 0
    connection.close()


def put(store: SqliteStore, key: str, value: bytes, *, expected: int | None = None) -> int:
    return store.put("ns", key, value, meta={"by": "ann"}, expected=expected)


def test_files_are_private_under_any_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
        put(store, "k", b"v")
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
        folders = {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)}
        store.close()
    finally:
        os.umask(before)
    assert {"kv.db", "kv.db-wal", "kv.db-shm"} == set(modes)
    assert set(modes.values()) == {0o600}
    assert folders == {0o700}


def test_a_symbolic_link_is_not_followed(path: Path, store: SqliteStore) -> None:
    store.close()
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StorageUnavailable) as caught:
        SqliteStore(link)
    assert "symbolic link" in str(caught.value.operator_detail)


def test_content_survives_reopening(path: Path, store: SqliteStore) -> None:
    put(store, "k", b"v")
    store.close()
    again = SqliteStore(path)
    found = again.get("ns", "k")
    again.close()
    assert found is not None
    assert found.value == b"v"


def test_a_closed_store_is_unavailable(store: SqliteStore) -> None:
    store.close()
    store.close()
    for use in (lambda: put(store, "k", b"v"), lambda: store.get("ns", "k"), store.change_token):
        with pytest.raises(StorageUnavailable):
            use()


@pytest.mark.parametrize(
    ("pragma", "says"),
    [
        ("user_version = 2", "format 2, newer than format 1"),
        ("user_version = 0", "format 0, older than format 1"),
        ("application_id = 7", "not a database of this kind"),
    ],
)
def test_another_format_is_refused_clearly(path: Path, store: SqliteStore, pragma: str, says: str) -> None:
    store.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    with pytest.raises(StorageUnavailable) as caught:
        SqliteStore(path)
    assert says in str(caught.value.operator_detail)
    assert str(path) not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look like one" * 40])
def test_a_file_of_something_else_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StorageUnavailable):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_database_that_vanished_is_not_begun_anew(path: Path, store: SqliteStore) -> None:
    put(store, "k", b"v")
    store.close()
    link = database.Link(path, FORMAT)
    for found in path.parent.iterdir():
        found.unlink()
    with pytest.raises(StorageUnavailable):
        link.use(lambda db: db.execute("SELECT 1").fetchone())
    assert not path.exists()


def test_many_processes_make_one_database(path: Path) -> None:
    def begin() -> None:
        store = SqliteStore(path)
        put(store, f"k{os.getpid()}", b"v")
        store.close()

    children = [FORK.Process(target=begin) for _ in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 6
    store = SqliteStore(path)
    assert len(store.entries("ns")) == 6
    store.close()
    assert [found.name for found in path.parent.iterdir()] == ["kv.db"]


def test_changes_of_another_process_are_seen(store: SqliteStore) -> None:
    put(store, "k", b"one")
    token = store.change_token()
    assert store.change_token() == token
    in_child(lambda: put(store, "k", b"two"))
    assert store.change_token() != token
    found = store.get("ns", "k")
    assert found is not None
    assert (found.version, found.value) == (2, b"two")


def test_a_token_of_before_a_fork_is_not_taken_for_current(store: SqliteStore) -> None:
    token = store.change_token()
    put(store, "k", b"v")

    def differs() -> None:
        assert store.change_token() != token

    in_child(differs)


def test_a_connection_is_never_used_across_a_fork(store: SqliteStore) -> None:
    """Forks while other threads write: the child works with connections of its own, and nobody is locked out."""
    stop = threading.Event()
    failures: list[StorageUnavailable] = []

    def write() -> None:
        try:
            while not stop.is_set():
                put(store, "busy", b"v")
        except StorageUnavailable as err:
            failures.append(err)

    def use() -> None:
        put(store, f"child{os.getpid()}", b"v")
        assert store.get("ns", "busy") is not None

    put(store, "busy", b"v")
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in writers:
        thread.start()
    for _ in range(4):
        in_child(use)
    stop.set()
    for thread in writers:
        thread.join()
    assert failures == []
    assert len(store.entries("ns", "child")) == 4
    versions = [entry.version for entry in store.history("ns", "busy")]
    assert versions == list(range(1, len(versions) + 1))


def test_processes_lose_no_update(store: SqliteStore) -> None:
    put(store, "n", b"0")

    def count() -> None:
        for _ in range(25):
            while True:
                found = store.get("ns", "n")
                assert found is not None
                try:
                    put(store, "n", b"%d" % (int(found.value) + 1), expected=found.version)
                    break
                except VersionConflict:
                    continue

    children = [FORK.Process(target=count) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    found = store.get("ns", "n")
    assert found is not None
    assert (found.value, found.version) == (b"75", 76)


@pytest.mark.parametrize("damaged", range(1, 5))
def test_bad_records_do_not_take_the_others(path: Path, store: SqliteStore, damaged: int) -> None:
    for number in range(4):
        put(store, f"k{number}", b"v")
    for number in range(damaged):
        if number % 2:
            edit(path, "DELETE FROM versions WHERE key = ?", f"k{number}")
        else:
            edit(path, "UPDATE versions SET meta = ? WHERE key = ?", b'{"by": 3}', f"k{number}")
    listed = store.entries("ns")
    assert [entry.key for entry in listed] == ["k0", "k1", "k2", "k3"]
    for number, entry in enumerate(listed):
        if number < damaged:
            assert set(entry.meta) == {DAMAGED}
            with pytest.raises(StorageUnavailable) as caught:
                store.get("ns", entry.key)
            assert f"ns/k{number}" in str(caught.value.operator_detail)
        else:
            assert store.get("ns", entry.key) is not None


def test_a_key_that_is_no_text_any_more_does_not_hide_the_list(path: Path, store: SqliteStore) -> None:
    put(store, "a", b"v")
    put(store, "b", b"v")
    edit(path, "UPDATE keys SET key = CAST(x'ff' AS TEXT) WHERE key = 'b'")
    assert [entry.key for entry in store.entries("ns")] == ["a", "\ufffd"]


def test_a_maker_that_fails_writes_nothing(store: SqliteStore) -> None:
    put(store, "k", b"v")

    def fail(version: int) -> bytes:
        raise RuntimeError(str(version))

    with pytest.raises(RuntimeError, match="2"):
        store.put_with("ns", "k", fail, meta={})
    assert put(store, "k", b"w") == 2


def test_deleted_bytes_are_gone_from_the_disk(path: Path, store: SqliteStore) -> None:
    put(store, "k", b"canary-of-version-one" * 500)
    put(store, "k", b"canary-of-version-two")
    put(store, "other", b"stays")
    on_disk = b"".join(found.read_bytes() for found in path.parent.iterdir())
    assert b"canary" in on_disk  # the scan below can find it
    assert store.delete("ns", "k")
    for found in path.parent.iterdir():
        assert b"canary" not in found.read_bytes()


def test_a_store_locked_for_too_long_is_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch, store: SqliteStore
) -> None:
    put(store, "k", b"v")
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    hasty = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as caught:
        put(hasty, "k", b"w")
    assert "locked" in str(caught.value.operator_detail)
    found = hasty.get("ns", "k")
    assert found is not None
    assert found.value == b"v"
    other.execute("ROLLBACK")
    other.close()
    assert put(hasty, "k", b"w") == 2
    hasty.close()
