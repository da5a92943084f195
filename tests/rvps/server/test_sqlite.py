"""The provider's own file: private, whole, shared, and silent about nothing."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from rvps.client import embedded
from rvps.errors import ProviderUnavailable
from rvps.server.sqlite import Conflict, SqliteStore, Unavailable
from tests.rvps.test_service import ALICE, AT, sample


def _count_up(path: Path, rounds: int) -> None:
    store = SqliteStore(path)
    for _ in range(rounds):
        while True:
            found = store.get("n", "counter")
            value = int(found.value) if found else 0
            try:
                store.put("n", "counter", str(value + 1).encode(), meta={}, expected=found.version if found else 0)
                break
            except Conflict:
                continue
    store.close()


def test_several_processes_lose_no_update(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(tmp_path / "rvps.db", 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    store = SqliteStore(tmp_path / "rvps.db")
    found = store.get("n", "counter")
    assert found is not None
    assert (found.value, found.version) == (b"60", 60)
    store.close()


def test_a_provider_sees_at_once_what_another_wrote(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "rvps.db") for _ in range(2)]
    one, two = (embedded(store, conflict=Conflict, unavailable=Unavailable) for store in stores)
    one.register(sample({"a": 1}), issuer=ALICE, at=AT)
    assert two.query("a", AT) == 1
    two.withdraw("a", issuer=ALICE, at=AT)
    assert one.query("a", AT) is None
    for store in stores:
        store.close()


def test_the_file_is_private(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rvps.db")
    store.put("n", "a", b"x", meta={})
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"rvps.db", "rvps.db-wal", "rvps.db-shm"}
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to look like one" * 50])
def test_what_is_no_database_of_ours_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    """An empty file too: it would be the loss of all serials and revocations."""
    (tmp_path / "rvps.db").write_bytes(content)
    with pytest.raises(Unavailable):
        SqliteStore(tmp_path / "rvps.db")
    assert (tmp_path / "rvps.db").read_bytes() == content


def test_a_database_of_a_later_form_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "rvps.db").close()
    with sqlite3.connect(tmp_path / "rvps.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(Unavailable, match="this release"):
        SqliteStore(tmp_path / "rvps.db")


def test_a_folder_that_is_missing_or_a_file_that_goes_away_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SqliteStore(tmp_path / "none" / "rvps.db")
    store = SqliteStore(tmp_path / "rvps.db")
    store.close()
    with pytest.raises(Unavailable):
        store.get("n", "a")


def test_a_full_disk_stores_nothing_of_a_statement_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rvps.db")
    provider = embedded(store, conflict=Conflict, unavailable=Unavailable)
    provider.register(sample({"a": 1}), issuer=ALICE, at=AT)
    pages = store._writes.use(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    store._writes.use(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())
    with pytest.raises(ProviderUnavailable):
        provider.register(sample({"b": "x" * 100_000, "a": 2}), issuer=ALICE, at=AT)
    assert dict(provider.snapshot(AT).values) == {"a": 1}
    store._writes.use(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchall())
    provider.register(sample({"a": 2}), issuer=ALICE, at=AT)
    assert dict(provider.snapshot(AT).values) == {"a": 2}
    store.close()


def test_a_writer_that_is_locked_out_for_long_is_told_to_try_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvps.server.sqlite._BUSY_SECONDS", 0.05)
    store = SqliteStore(tmp_path / "rvps.db")
    other = sqlite3.connect(tmp_path / "rvps.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        store.put("n", "a", b"x", meta={})
    assert store.get("n", "a") is None
    other.execute("ROLLBACK")
    other.close()
    assert store.put("n", "a", b"x", meta={}) == 1
    store.close()


def test_no_scratch_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("rvps.server.sqlite.os.link", fail)
    with pytest.raises(Unavailable, match="No space left"):
        SqliteStore(tmp_path / "rvps.db")
    assert list(tmp_path.iterdir()) == []
