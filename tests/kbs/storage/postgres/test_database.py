"""Connections: what breaks, what is said about it, and that it works again without anybody doing anything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from kbs.config import StorageSettings
from kbs.errors import ConfigInvalid, StorageUnavailable
from kbs.secret import Secret
from kbs.storage.postgres.address import complete, is_verified, read_dsn
from kbs.storage.postgres.database import Connection, Database, Format, Limits
from kbs.storage.postgres.opening import open_database
from tests.postgres_binary import Cluster

PASSWORD = "p4ssw0rd-canary"
QUICK = Limits(connect=2, statement=0.3, lock=0.2, answer=0.6, busy=0.2, rest=0.0)
TRY = Format("try", 1, ("CREATE TABLE kbs_try (a INTEGER PRIMARY KEY)",))


def one(db: Connection) -> object:
    row = db.execute("SELECT 1").fetchone()
    return row and row[0]


def detail(error: pytest.ExceptionInfo[StorageUnavailable]) -> str:
    assert str(error.value) == "the store is unavailable"
    return error.value.operator_detail or ""


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n", b"canary", b"postgresql://u:canary@h/d?nonsense=1", b"host=h\npassword=canary", b"\xffcanary"],
    ids=["empty", "blank", "a word", "unknown parameter", "two lines", "not utf-8"],
)
def test_what_is_no_address_is_refused_and_not_repeated(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "dsn"
    path.write_bytes(raw)
    with pytest.raises(ConfigInvalid, match=r"storage\.dsn_file") as refused:
        read_dsn(path)
    assert "canary" not in str(refused.value)


def test_an_address_that_is_not_there_or_has_no_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_dsn(tmp_path / "dsn")
    (tmp_path / "dsn").write_bytes(b"postgresql://h/" + b"d" * 5000)
    with pytest.raises(ConfigInvalid, match="one line"):
        read_dsn(tmp_path / "dsn")


@pytest.mark.parametrize(
    ("dsn", "fine"),
    [
        ("postgresql://db.example/kbs?sslmode=verify-full", True),
        ("postgresql://db.example/kbs?sslmode=verify-ca", False),
        ("postgresql://db.example/kbs?sslmode=require", False),
        ("postgresql://db.example/kbs", False),
        ("postgresql://localhost/kbs", True),
        ("postgresql://[::1]:5432/kbs", True),
        ("postgresql:///kbs", True),
        ("postgresql:///kbs?host=/run/postgresql", True),
        ("postgresql://localhost,db.example/kbs", False),
        ("postgresql://localhost/kbs?hostaddr=192.0.2.1", False),
        ("host=/run/postgresql dbname=kbs", True),
        ("host=db.example dbname=kbs sslmode=verify-full", True),
        ("host=localhost.example dbname=kbs", False),
    ],
)
def test_another_machine_needs_verify_full(tmp_path: Path, dsn: str, fine: bool) -> None:
    assert is_verified(Secret(dsn.encode())) is fine
    path = tmp_path / "dsn"
    path.write_text(dsn + "\n")
    if fine:
        open_database(tmp_path, StorageSettings(kind="postgres", dsn_file=Path("dsn"))).close()
        return
    with pytest.raises(ConfigInvalid, match="sslmode=verify-full"):
        open_database(tmp_path, StorageSettings(kind="postgres", dsn_file=path))
    open_database(tmp_path, StorageSettings(kind="postgres", dsn_file=path, insecure_transport=True)).close()


# --- passwords --------------------------------------------------------------------------------------------------------


def test_the_password_is_in_no_error(postgres: Cluster) -> None:
    postgres.run("DROP ROLE IF EXISTS guarded", f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
    address = f"host={postgres.folder} port={postgres.port} dbname=postgres user=guarded"
    good = Database(Secret(f"{address} password={PASSWORD}".encode()), limits=QUICK)
    assert good.use(one) == 1
    wrong = Database(Secret(f"{address} password={PASSWORD}x".encode()), limits=QUICK)
    absent = Database(Secret(f"host=/nowhere password={PASSWORD}".encode()), limits=QUICK)
    for database, what in ((wrong, "password authentication failed"), (absent, "/nowhere")):
        with pytest.raises(StorageUnavailable) as refused:
            database.use(one)
        assert what in detail(refused)
        assert PASSWORD not in detail(refused)
        assert PASSWORD not in repr(vars(database)["_dsn"])
    assert PASSWORD not in (good.unavailable(f"echo {PASSWORD}").operator_detail or "")
    good.close()


def test_a_password_that_changed_in_the_file_is_used(postgres: Cluster, tmp_path: Path) -> None:
    """From the next connect on; a file that cannot be used meanwhile is an error, and no other password is tried."""
    path = tmp_path / "dsn"
    address = f"host={postgres.folder} port={postgres.port} dbname=postgres user=guarded password="
    postgres.run("DROP ROLE IF EXISTS guarded", f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
    path.write_text(address + PASSWORD)
    database = open_database(tmp_path, StorageSettings(kind="postgres", dsn_file=path))
    database._limits = QUICK

    def ends() -> None:
        postgres.run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'guarded'")

    def without_rest() -> object:
        database._rest_until = 0.0  # after a failure it rests for as long as that took
        return database.use(one)

    try:
        assert database.use(one) == 1
        postgres.run("ALTER ROLE guarded PASSWORD 'another-canary'")
        ends()
        with pytest.raises(StorageUnavailable, match="unavailable"):
            database.use(one)
        path.write_text(address + "another-canary")
        assert without_rest() == 1
        assert "another-canary" not in str(database.unavailable("another-canary").operator_detail)
        ends()
        for text, what in (("", "expected one line"), ("postgresql://u:canary@db.example/kbs", "verify-full")):
            path.write_text(text)
            with pytest.raises(StorageUnavailable) as refused:
                without_rest()
            assert what in detail(refused)
            assert "canary" not in detail(refused)
    finally:
        database.close()


def test_variables_of_the_process_lead_nowhere_else(postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR"):
        monkeypatch.setenv(name, "192.0.2.1")
    monkeypatch.setenv("PGGSSENCMODE", "require")
    for dsn in ("postgresql://127.0.0.1:1/kbs", "postgresql:///kbs?port=1", "hostaddr=127.0.0.1 port=1"):
        database = Database(Secret(dsn.encode()), limits=QUICK)
        with pytest.raises(StorageUnavailable) as refused:
            database.use(one)
        assert "192.0.2.1" not in detail(refused)
        assert "GSS" not in detail(refused)
    text = complete(postgres.dsn(), connect=2, answer=5.0).reveal().decode()
    assert "target_session_attrs=read-write" in text


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tables_are_made_once_whoever_comes_first(new_database: Callable[..., Database]) -> None:
    gate = threading.Barrier(4)

    def start(database: Database) -> None:
        gate.wait()
        database.prepare(TRY)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(start, new_database(connections=1)) for _ in range(4)]:
            done.result()
    assert new_database().use(lambda db: db.execute("SELECT part, version FROM kbs_format").fetchall()) == [("try", 1)]


@pytest.mark.parametrize(("found", "word"), [(2, "newer"), (0, "older")])
def test_tables_of_another_format_are_refused(new_database: Callable[..., Database], found: int, word: str) -> None:
    database = new_database()
    database.prepare(TRY)
    database.use(lambda db: db.execute("UPDATE kbs_format SET version = %s", (found,)))
    with pytest.raises(StorageUnavailable) as refused:
        database.prepare(TRY)
    assert f"try has format {found}, {word} than format 1" in detail(refused)


def test_tables_of_somebody_else_are_refused_and_left_alone(new_database: Callable[..., Database]) -> None:
    database = new_database()
    database.use(lambda db: db.execute("CREATE TABLE kbs_try (other TEXT)"))
    with pytest.raises(StorageUnavailable) as refused:
        database.prepare(TRY)
    assert "schema of its own" in detail(refused)
    assert database.use(lambda db: db.execute("SELECT to_regclass('kbs_format')").fetchone()) == (None,)


def test_tables_that_cannot_be_made_whole_are_not_made(new_database: Callable[..., Database]) -> None:
    database = new_database()
    with pytest.raises(StorageUnavailable):
        database.prepare(Format("half", 1, ("CREATE TABLE kbs_half (a INTEGER)", "CREATE NONSENSE")))
    assert database.use(lambda db: db.execute("SELECT to_regclass('kbs_half')").fetchone()) == (None,)


def test_a_path_to_no_schema_is_refused(postgres: Cluster) -> None:
    database = Database(postgres.dsn("not_there"), limits=QUICK)
    with pytest.raises(StorageUnavailable) as refused:
        database.use(one)
    assert "search_path" in detail(refused)


def test_a_session_is_made_safe(postgres: Cluster, schema: str) -> None:
    """What the role or the address set otherwise is set back."""
    loose = postgres.dsn(schema).reveal().decode() + "%20-csynchronous_commit%3Doff%20-cdefault_transaction_isolation"
    database = Database(Secret((loose + "%3Dserializable").encode()), limits=QUICK)
    shown = {
        name: database.use(lambda db, name=name: db.execute(f"SHOW {name}").fetchone())  # type: ignore[misc]
        for name in ("synchronous_commit", "default_transaction_isolation", "search_path", "statement_timeout")
    }
    database.close()
    assert shown == {
        "synchronous_commit": ("on",),
        "default_transaction_isolation": ("read committed",),
        "search_path": (f"{schema}, pg_temp",),
        "statement_timeout": ("300ms",),
    }


# --- what breaks ------------------------------------------------------------------------------------------------------


def test_whatever_is_left_open_is_rolled_back(new_database: Callable[..., Database]) -> None:
    database = new_database(connections=1)
    database.prepare(TRY)

    def half(db: Connection) -> None:
        db.execute("BEGIN")
        db.execute("INSERT INTO kbs_try VALUES (1)")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.use(half)
    assert database.use(lambda db: db.execute("SELECT count(*) FROM kbs_try").fetchone()) == (0,)


def test_a_lock_held_by_somebody_else_is_not_waited_for_long(new_database: Callable[..., Database]) -> None:
    holder, other = new_database(), new_database(limits=QUICK)
    holder.prepare(TRY)

    def hold(db: Connection) -> None:
        with db.transaction():
            db.execute("LOCK TABLE kbs_try")
            with pytest.raises(StorageUnavailable) as refused:
                other.use(lambda db: db.execute("INSERT INTO kbs_try VALUES (1)"))
            assert "lock timeout" in detail(refused)

    holder.use(hold)
    other.use(lambda db: db.execute("INSERT INTO kbs_try VALUES (1)"))


def test_all_connections_in_use(new_database: Callable[..., Database]) -> None:
    database = new_database(connections=2, limits=QUICK)

    def nested(_db: Connection) -> None:
        database.use(last)

    def last(_db: Connection) -> None:
        with pytest.raises(StorageUnavailable) as refused:
            database.use(one)
        assert "storage.connections" in detail(refused)

    database.use(nested)
    assert database.use(one) == 1


def test_a_restart_between_calls_is_not_noticed(postgres: Cluster, new_database: Callable[..., Database]) -> None:
    database = new_database()
    assert database.use(one) == 1
    with postgres.down():
        pass
    assert database.use(one) == 1


def test_a_crash_fails_what_runs_and_nothing_later(postgres: Cluster, new_database: Callable[..., Database]) -> None:
    database = new_database()
    database.prepare(TRY)
    runs: list[int] = []

    def read(db: Connection) -> object:
        runs.append(db.info.backend_pid)
        if len(runs) == 1:
            os.kill(db.info.backend_pid, signal.SIGTERM)
        return one(db)

    with ExitStack() as down:

        def insert(db: Connection) -> None:
            db.execute("INSERT INTO kbs_try VALUES (1)")
            down.enter_context(postgres.down("immediate"))
            db.execute("INSERT INTO kbs_try VALUES (2)")

        with pytest.raises(StorageUnavailable):
            database.use(insert)
        with pytest.raises(StorageUnavailable) as refused:
            database.use(one)
        assert "No such file" in detail(refused) or "refused" in detail(refused)
    assert database.use(lambda db: db.execute("SELECT a FROM kbs_try").fetchall()) == [(1,)]
    assert database.use(read, repeatable=True) == 1  # its connection ended under it
    assert len(set(runs)) == 2


def test_a_server_that_stands_still_is_not_waited_for(postgres: Cluster, new_database: Callable[..., Database]) -> None:
    database = new_database(limits=QUICK)
    assert database.use(one) == 1
    postgres.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StorageUnavailable) as refused:
            database.use(one)
        assert "no answer within 0.6 s" in detail(refused)
        with pytest.raises(StorageUnavailable) as refused:  # at once, and for the same reason
            database.use(one)
        assert "a moment ago: no answer" in detail(refused)
    finally:
        postgres.signal(signal.SIGCONT)


def test_a_server_that_became_a_stand_by_is_left(new_database: Callable[..., Database]) -> None:
    database = new_database(connections=1)
    database.prepare(TRY)
    before = database.use(lambda db: db.info.backend_pid)

    def write(db: Connection) -> None:
        db.execute("SET default_transaction_read_only = on")
        db.execute("INSERT INTO kbs_try VALUES (1)")

    with pytest.raises(StorageUnavailable) as refused:
        database.use(write)
    assert "read-only" in detail(refused)
    assert database.use(lambda db: db.info.backend_pid) != before


def test_both_sides_of_a_fork_have_connections_of_their_own(new_database: Callable[..., Database]) -> None:
    database = new_database()
    before = database.use(lambda db: db.info.backend_pid)
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ours, b"%d" % database.use(lambda db: db.info.backend_pid))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    in_child = int(os.read(theirs, 20))
    os.close(theirs)
    os.close(ours)
    after = database.use(lambda db: db.info.backend_pid)
    assert len({before, in_child, after}) == 3


def test_a_fork_is_not_kept_waiting_by_who_comes_later(new_database: Callable[..., Database]) -> None:
    database = new_database()
    begun, going = threading.Barrier(5), True

    def work() -> None:
        begun.wait()
        while going:
            database.use(lambda db: db.execute("SELECT pg_sleep(0.01)"))

    def fork() -> None:
        database.before_fork()
        database.after_fork(in_child=False)

    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work) for _ in range(4)]
        begun.wait()
        try:
            for _ in range(3):
                forking = threading.Thread(target=fork)
                forking.start()
                forking.join(10)
                assert not forking.is_alive()
        finally:
            going = False
        for worker in workers:
            worker.result()
    assert database.use(one) == 1


def test_a_pooler_may_pool_sessions_but_not_transactions(
    postgres: Cluster, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)  # what a pooler tells is none of the server's
    database = Database(postgres.dsn(schema), limits=QUICK)
    assert database.use(one) == 1
    database.close()
    held = psycopg.connect(postgres.dsn(schema).reveal().decode(), autocommit=True)
    monkeypatch.setattr(Connection, "connect", lambda *_, **__: held)
    with pytest.raises(StorageUnavailable) as refused:
        Database(postgres.dsn(schema), limits=QUICK).use(one)
    assert "have it pool sessions" in detail(refused)


def test_closed_is_closed(new_database: Callable[..., Database]) -> None:
    database = new_database()

    def close_inside(db: Connection) -> Connection:
        database.close()
        return db

    assert database.use(close_inside).closed
    with pytest.raises(StorageUnavailable) as refused:
        database.use(one)
    assert "was closed" in detail(refused)


def test_other_errors_than_the_database_s_pass(new_database: Callable[..., Database]) -> None:
    with pytest.raises(ZeroDivisionError):
        new_database().use(lambda _db: 1 // 0)
    with pytest.raises(StorageUnavailable) as refused:
        new_database().use(lambda db: db.execute("SELECT 1 / 0"))
    assert isinstance(refused.value.__cause__, psycopg.errors.DivisionByZero)
