"""Rules of several replicas: what one changes the others use, and what nobody can confirm nobody uses."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.secret import Secret
from kbs.storage.postgres import key_value
from kbs.storage.postgres.database import Connection, Database
from kbs.storage.postgres.key_value import PostgresStore
from kbs.storage.sealed import SealedStore, SealingKeys
from tests.postgres_binary import Cluster

FORK = multiprocessing.get_context("fork")
KEYS = SealingKeys([Secret(bytes(range(32)))])
NewDatabase = Callable[..., Database]


class Clock:
    """A monotonic clock that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(key_value, "monotonic", clock)
    return clock


def put(store: PostgresStore, value: bytes, expected: int | None = None) -> int:
    return store.put("ns", "k", value, meta={}, expected=expected)


def value(store: PostgresStore) -> bytes | None:
    found = store.get("ns", "k")
    return None if found is None else found.value


def test_what_another_replica_changed_is_known_in_time(new_database: NewDatabase, clock: Clock) -> None:
    one, two = PostgresStore(new_database()), PostgresStore(new_database())
    put(one, b"old")
    assert value(two) == b"old"
    before = two.change_token()
    put(one, b"new")
    clock.now += key_value.LOOK_EVERY
    assert two.change_token() != before
    assert value(two) == b"new"
    assert one.change_token() == two.change_token()


def test_reading_a_rule_again_asks_nobody(new_database: NewDatabase, clock: Clock) -> None:
    database = new_database()
    store = PostgresStore(database)
    put(store, b"rule")
    assert value(store) == b"rule"
    database.close()
    clock.now += key_value.LOOK_EVERY * 0.99
    assert value(store) == b"rule"
    clock.now += key_value.LOOK_EVERY * 0.02
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            store.get("ns", "k")
        with pytest.raises(StorageUnavailable):
            store.change_token()


def test_a_database_that_was_set_back_is_another_one(new_database: NewDatabase, clock: Clock) -> None:
    """As many changes as before, and others."""
    database = new_database()
    store = PostgresStore(database)
    put(store, b"first")
    database.use(lambda db: db.execute("CREATE TABLE backup AS SELECT * FROM kbs_changes"))
    database.use(lambda db: db.execute("CREATE TABLE versions_then AS SELECT * FROM kbs_versions"))
    put(store, b"lost")
    assert value(store) == b"lost"
    for statement in (
        "DELETE FROM kbs_versions",
        "INSERT INTO kbs_versions SELECT * FROM versions_then",
        "UPDATE kbs_keys SET last = 1",
        "UPDATE kbs_changes SET (count, mark) = (SELECT count, mark FROM backup)",
    ):
        database.use(lambda db, statement=statement: db.execute(statement))  # type: ignore[misc]
    clock.now += key_value.LOOK_EVERY
    assert value(store) == b"first"
    other = PostgresStore(new_database())
    assert put(other, b"second") == 2
    clock.now += key_value.LOOK_EVERY
    assert value(store) == b"second"


def test_what_was_acknowledged_outlives_a_crash(postgres: Cluster, new_database: NewDatabase, clock: Clock) -> None:
    store = SealedStore(PostgresStore(new_database()), KEYS)
    for number in range(5):
        assert store.put("ns", f"k{number}", b"%d" % number, meta={"n": str(number)}) == 1
    with postgres.down("immediate"):
        clock.now += 1
        with pytest.raises(StorageUnavailable):
            store.put("ns", "k9", b"", meta={})
        with pytest.raises(StorageUnavailable):
            store.get("ns", "k1")
        with pytest.raises(StorageUnavailable):
            store.entries("ns")
    found = [store.get("ns", f"k{number}") for number in range(5)]
    assert [record and record.value for record in found] == [b"0", b"1", b"2", b"3", b"4"]
    assert store.put("ns", "k1", b"again", meta={}, expected=1) == 2
    assert [entry.key for entry in store.entries("ns")] == [f"k{number}" for number in range(5)]


def test_a_write_that_the_server_ends_leaves_nothing(postgres: Cluster, new_database: NewDatabase) -> None:
    database = new_database()
    store = PostgresStore(database)
    put(store, b"whole")

    def make(_version: int) -> bytes:
        with postgres.down("immediate"):
            pass
        return b"torn"

    with pytest.raises(StorageUnavailable):
        store.put_with("ns", "k", make, meta={})
    assert value(store) == b"whole"
    assert [entry.version for entry in store.history("ns", "k")] == [1]


def test_a_value_that_cannot_be_made_leaves_nothing(new_database: NewDatabase) -> None:
    store = PostgresStore(new_database(connections=1))
    with pytest.raises(ZeroDivisionError):
        store.put_with("ns", "k", lambda version: b"%d" % (1 // (version - 1)), meta={})
    assert value(store) is None
    assert put(store, b"first", expected=0) == 1


def count_up(open_store: Callable[[], PostgresStore], rounds: int, report: Path) -> None:
    store = open_store()
    won: list[int] = []
    while len(won) < rounds:
        found = store.get("ns", "k")
        assert found is not None
        try:
            won.append(put(store, b"%d" % (int(found.value) + 1), expected=found.version))
        except VersionConflict:
            store.change_token()
            store._seen = store._seen._replace(until=0.0)  # who lost a race looks again, as a person would
    report.write_text(" ".join(map(str, won)))


def test_racing_processes_lose_no_update(new_database: NewDatabase, tmp_path: Path) -> None:
    put(PostgresStore(new_database()), b"0")
    reports = [tmp_path / f"won{number}" for number in range(3)]

    def open_store() -> PostgresStore:
        return PostgresStore(new_database())

    children = [FORK.Process(target=count_up, args=(open_store, 8, report)) for report in reports]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    won = [int(number) for report in reports for number in report.read_text().split()]
    assert sorted(won) == list(range(2, 26))
    assert value(PostgresStore(new_database())) == b"24"


def test_one_damaged_record_does_not_hide_the_others(new_database: NewDatabase, clock: Clock) -> None:
    database = new_database()
    store = PostgresStore(database)
    for key in ("a", "b", "c"):
        store.put("ns", key, b"v", meta={})
    database.use(lambda db: db.execute("UPDATE kbs_versions SET meta = '[]' WHERE key = 'a'"))
    database.use(lambda db: db.execute("DELETE FROM kbs_versions WHERE key = 'b'"))
    clock.now += key_value.LOOK_EVERY
    assert [(entry.key, "damaged" in entry.meta) for entry in store.entries("ns")] == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]
    for key in ("a", "b"):
        with pytest.raises(StorageUnavailable, match="damaged"):
            store.get("ns", key)
    assert store.get("ns", "c") is not None


def test_a_value_moved_by_an_editor_does_not_open(new_database: NewDatabase) -> None:
    database = new_database()
    store = SealedStore(PostgresStore(database), KEYS)
    store.put("ns", "a", b"of a", meta={})
    store.put("ns", "b", b"of b", meta={})

    def swap(db: Connection) -> None:
        db.execute("UPDATE kbs_versions SET value = (SELECT value FROM kbs_versions WHERE key = 'a') WHERE key = 'b'")

    database.use(swap)
    assert database.use(lambda db: db.execute("SELECT count(*) FROM kbs_versions WHERE value = 'of a'").fetchone()) == (
        0,
    )
    with pytest.raises(StorageUnavailable, match="damaged"):
        store.get("ns", "b")


def test_the_row_that_counts_changes_has_to_be_there(new_database: NewDatabase, clock: Clock) -> None:
    database = new_database()
    store = PostgresStore(database)
    put(store, b"v")
    database.use(lambda db: db.execute("DELETE FROM kbs_changes"))
    clock.now += key_value.LOOK_EVERY
    with pytest.raises(StorageUnavailable) as refused:
        store.get("ns", "k")
    assert "kbs_changes" in (refused.value.operator_detail or "")
    with pytest.raises(StorageUnavailable):
        put(store, b"w")


def test_only_large_records_are_asked_for_again(new_database: NewDatabase) -> None:
    store = PostgresStore(new_database())
    large = bytes(100_000)
    put(store, large)
    assert value(store) == large
    assert store.get("ns", "k") is not store.get("ns", "k")
    put(store, b"small")
    assert store.get("ns", "k") is store.get("ns", "k")


@pytest.mark.parametrize("column", ["value", "meta"])
def test_columns_of_another_type_are_damage(new_database: NewDatabase, clock: Clock, column: str) -> None:
    database = new_database()
    store = PostgresStore(database)
    put(store, b"{}")
    database.use(
        lambda db: db.execute(f"ALTER TABLE kbs_versions ALTER COLUMN {column} TYPE INTEGER USING length({column})")
    )
    clock.now += key_value.LOOK_EVERY
    with pytest.raises(StorageUnavailable) as refused:
        store.get("ns", "k")
    assert "meta does not parse" in str(refused.value.operator_detail)


def test_versions_end_with_an_error(new_database: NewDatabase) -> None:
    database = new_database()
    store = PostgresStore(database)
    put(store, b"1")
    database.use(lambda db: db.execute("UPDATE kbs_keys SET last = 9223372036854775807"))
    with pytest.raises(StorageUnavailable) as refused:
        put(store, b"2")
    assert "out of range" in str(refused.value.operator_detail)
    assert [entry.version for entry in store.history("ns", "k")] == [1]


def test_a_write_whose_answer_was_lost_is_looked_for(
    new_database: NewDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed; who wrote it was told that the store is down, and must not go on with what was before."""
    database = new_database()
    store = PostgresStore(database)
    put(store, b"old")
    assert value(store) == b"old"
    use = database.use

    def lost(*given: Any, **more: Any) -> None:
        use(*given, **more)
        raise StorageUnavailable("the store is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(database, "use", lost)
        with pytest.raises(StorageUnavailable):
            put(store, b"new")
    assert value(store) == b"new"
