"""One PostgreSQL database of ours: connections, the tables made whole, only formats we know, nothing across a fork.

A store holds a `Database`, names its tables in a `Format` and runs its statements in `Database.use`. All errors of
PostgreSQL leave as `StorageUnavailable`; the password is in none of them.

Connections are kept in a small stack of our own. `psycopg_pool` opens them in threads, which do not live through a
fork, and waits with growing pauses after a restart of the server, while a request should either be served or be told at
once.
"""

from __future__ import annotations

import hashlib
import os
import select
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.abc import PQGen

from kbs.errors import ConfigInvalid, StorageUnavailable
from kbs.secret import Secret
from kbs.storage.postgres.address import complete, secrets_in, shown

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

_OLDEST: Final = 150_000  # PostgreSQL 15, as `server_version_num` has it
_FOREIGN: Final = "exists and is not of this kind; give the broker a schema of its own"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long somebody waits before a request is refused, in seconds.

    connect: for a connection, each host (libpq knows no less than 2). statement: the server's own limit for one
    statement. lock: for a lock that another transaction holds. answer: for the server to answer at all; then the
    connection is closed, and as long again everybody is refused at once. busy: for one of our connections to become
    free. rest: after a failed connect, and as long again as that took, everybody is refused at once.
    """

    connect: int = 2
    statement: float = 4.0
    lock: float = 3.0
    answer: float = 5.0
    busy: float = 5.0
    rest: float = 0.25


@dataclass(frozen=True, slots=True)
class Format:
    """The tables of one store.

    part: its name in the table `kbs_format`.
    version: counts up when the tables change; another one found there is refused.
    schema: statements that make its tables (names begin with kbs_), run in one transaction.
    """

    part: str
    version: int
    schema: Sequence[str]


class Connection(psycopg.Connection[Row]):
    """A connection that does not wait for ever: a server that is stopped, or behind a dead link, answers nothing."""

    patience: float = 5.0
    is_silent: bool = False

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Run one exchange with the server; raises `psycopg.OperationalError` after `patience` seconds."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as err:
            self.is_silent = True
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.patience:g} s") from err


class Database:
    """A few connections to one database, used by the threads of one process.

    After a fork each side opens its own. A connection that broke while nobody used it is replaced unnoticed; one that
    breaks in use fails that one request, and the next finds a new one.
    """

    def __init__(
        self,
        dsn: Secret,
        *,
        connections: int = 4,
        limits: Limits | None = None,
        renew: Callable[[], Secret] | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            dsn: as `read_dsn` gives it; what is missing in it: `address.complete`.
            connections: the most that are open at a time; who needs one more waits.
            renew: asked before each connect for the address as it is then, so that a password may change; raises
                ConfigInvalid while there is none to be used.
        """
        self._limits = limits or Limits()
        self._renew = renew
        self._dsn = dsn
        self._secrets = secrets_in(dsn)
        self.name = shown(dsn)
        """Where it is and who we are there; shown to operators."""
        self._idle: list[Connection] = []
        self._most = connections
        self._in_use = 0
        self._forks = 0  # that wait for the connections in use
        self._rest_until = 0.0
        self._why = ""
        self._closed = False
        self._change = threading.Condition(threading.Lock())
        _DATABASES.add(self)

    # --- use ----------------------------------------------------------------------------------------------------------

    def use(self, work: Callable[[Connection], T], *, repeatable: bool = False) -> T:
        """Run `work` on a connection in autocommit mode; a transaction that it leaves open is rolled back.

        Args:
            work: one statement, or several in `with connection.transaction():`.
            repeatable: run again on a new connection, once, if the connection breaks: for what only reads.

        Raises:
            StorageUnavailable: down, full, read-only, a lock held for too long, no answer, all connections in use.
        """
        connection = self._take()
        try:
            return work(connection)
        except psycopg.Error as err:
            if isinstance(err, psycopg.errors.ReadOnlySqlTransaction):
                connection.close()  # no longer the primary; the next connect looks for it
            if connection.closed:
                self._broken(connection, err)
            if not (repeatable and connection.closed):
                raise self.unavailable(err) from err
        finally:
            self._give_back(connection)
        return self.use(work)

    def unavailable(self, cause: object) -> StorageUnavailable:
        """The peer learns that the store is down; the operator learns which database and why."""
        text = " ".join(str(cause).split())
        for secret in self._secrets:
            text = text.replace(secret, "•••")
        return StorageUnavailable("the store is unavailable", operator_detail=f"postgresql {self.name}: {text}")

    def _broken(self, connection: Connection, why: psycopg.Error) -> None:
        """The others lead to the same server. One that stands still would keep the next request waiting as well."""
        with self._change:
            self._drop()
            if connection.is_silent:
                self._rest_until = monotonic() + self._limits.answer
                self._why = str(why)

    def _take(self) -> Connection:
        with self._change:
            if not self._change.wait_for(self._may_take, self._limits.busy):
                raise self.unavailable("all connections are in use; see storage.connections")
            if self._closed:
                raise self.unavailable("was closed")
            while self._idle:
                connection = self._idle.pop()
                if _is_quiet(connection):
                    self._in_use += 1
                    return connection
                connection.close()
            if monotonic() < self._rest_until:
                raise self.unavailable(f"a moment ago: {self._why}")
            self._in_use += 1
        begun = monotonic()
        try:
            return self._connect()
        except BaseException as err:
            with self._change:
                self._in_use -= 1
                now = monotonic()
                self._rest_until = now + self._limits.rest + (now - begun)
                self._why = str(err)
                self._change.notify_all()  # also a fork may wait
            if isinstance(err, psycopg.Error):
                raise self.unavailable(err) from err
            raise

    def _may_take(self) -> bool:
        return self._closed or (self._in_use < self._most and not self._forks)

    def _give_back(self, connection: Connection) -> None:
        with suppress(psycopg.Error):  # one that breaks here is closed by it
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE and not connection.closed:
                connection.rollback()
        usable = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if not usable:
            connection.close()
        with self._change:
            self._in_use -= 1
            if usable and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
            self._change.notify_all()

    def _connect(self) -> Connection:
        """A session as ours have to be: what the role or the server has set otherwise is set back."""
        limits = self._limits
        dsn = complete(self._newest_dsn(), connect=limits.connect, answer=limits.answer)
        connection = Connection.connect(dsn.reveal().decode(), autocommit=True, prepare_threshold=0)
        connection.patience = limits.answer
        try:
            if connection.info.server_version < _OLDEST:
                raise psycopg.ProgrammingError("PostgreSQL 15 or later is needed")
            set_back = (
                ("statement_timeout", f"{limits.statement * 1000:.0f}"),
                ("lock_timeout", f"{limits.lock * 1000:.0f}"),
                ("idle_in_transaction_session_timeout", f"{limits.answer * 2000:.0f}"),
                ("default_transaction_isolation", "read committed"),
                ("client_encoding", "UTF8"),
            )
            chosen = ", ".join("set_config(%s, %s, false)" for _ in set_back)
            # acknowledged means on the disk, and on that of the stand-by if there is a synchronous one; a schema of
            # somebody else that comes later in the path is not looked into
            row = connection.execute(
                f"""SELECT current_schema(), current_setting('server_encoding'), pg_backend_pid(),
                    set_config('search_path', quote_ident(current_schema()) || ', pg_temp', false),
                    set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'
                        THEN 'remote_apply' ELSE 'on' END, false), {chosen}""",
                [text for pair in set_back for text in pair],
                prepare=False,
            ).fetchone()
            schema, encoding, backend = (None, None, 0) if row is None else row[:3]
            if schema is None:
                raise psycopg.ProgrammingError("no schema to work in; see the search_path of this role")
            if encoding != "UTF8":
                raise psycopg.ProgrammingError(f"the database has encoding {encoding}; UTF8 is needed")
            if backend != connection.info.backend_pid:
                _refuse_shared(dsn, int(backend))
        except BaseException:
            connection.close()
            raise
        return connection

    def _newest_dsn(self) -> Secret:
        if self._renew is not None:
            try:
                self._dsn = self._renew()
            except ConfigInvalid as err:
                raise psycopg.OperationalError(str(err)) from None
            self._secrets = secrets_in(self._dsn)
            self.name = shown(self._dsn)
        return self._dsn

    # --- tables -------------------------------------------------------------------------------------------------------

    def prepare(self, form: Format) -> None:
        """Make the tables of a store if they are not there, all or none, also if several brokers start at once.

        A role that may not make tables is enough once they are there.

        Raises:
            StorageUnavailable: as `use`; also tables of another version, or somebody else's under our names.
        """
        found = self.use(lambda db: _version_of(db, form.part), repeatable=True)
        if found is None:
            found = self.use(lambda db: _make(db, form))
        if found != form.version:
            newer = "newer" if found > form.version else "older"
            raise self.unavailable(
                f"{form.part} has format {found}, {newer} than format {form.version} of this program; "
                "use the matching release"
            )

    # --- ends ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close for good; what is in use is closed when it comes back."""
        with self._change:
            self._closed = True
            self._drop()
            self._change.notify_all()

    def _drop(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def before_fork(self) -> None:
        """Keep others from opening a connection, wait until nobody uses one, close all."""
        self._change.acquire()
        self._forks += 1
        self._change.wait_for(lambda: self._in_use == 0)
        self._drop()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; in the child without the threads that waited."""
        if in_child:
            self._forks = 0
            self._change = threading.Condition(threading.Lock())
        else:
            self._forks -= 1
            self._change.notify_all()
            self._change.release()


# libpq: a connection is for one process; even to close it in the child would end the parent's. So nothing is open while
# a fork happens, as with the SQLite files.
_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[Database] = []


def _before_fork() -> None:
    for database in list(_DATABASES):
        database.before_fork()
        _held.append(database)


def _after_fork(*, in_child: bool) -> None:
    while _held:
        _held.pop().after_fork(in_child=in_child)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing came while nobody listened: the end of the connection, or the server's last words."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def _refuse_shared(dsn: Secret, backend: int) -> None:
    """Something between us and the server pools its sessions. Where one is shared while we hold it, after each
    transaction, what was set for it, `synchronous_commit` too, holds for anybody or nobody: then a second connection
    meets the same session.
    """
    with Connection.connect(dsn.reveal().decode(), autocommit=True) as second:
        row = second.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    if row is not None and row[0] == backend:
        raise psycopg.ProgrammingError("a pooler shares one session among connections; have it pool sessions")


def _version_of(db: Connection, part: str) -> int | None:
    """The version of a part; None: it is not there."""
    table = db.execute("SELECT to_regclass('kbs_format')").fetchone()
    if table is None or table[0] is None:
        return None
    row = db.execute("SELECT version FROM kbs_format WHERE part = %s", (part,)).fetchone()
    return None if row is None else int(row[0])


def _make(db: Connection, form: Format) -> int:
    with db.transaction():
        schema = str(db.execute("SELECT current_schema()").fetchone())
        number = int.from_bytes(hashlib.sha256(f"kbs format {schema}".encode()).digest()[:8], "big", signed=True)
        db.execute("SELECT pg_advisory_xact_lock(%s)", (number,))
        db.execute("CREATE TABLE IF NOT EXISTS kbs_format (part TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        row = db.execute("SELECT version FROM kbs_format WHERE part = %s", (form.part,)).fetchone()
        if row is not None:
            return int(row[0])
        for statement in form.schema:
            try:
                db.execute(statement)
            except psycopg.errors.DuplicateTable as err:
                raise psycopg.ProgrammingError(f"a table of {form.part} {_FOREIGN}") from err
        db.execute("INSERT INTO kbs_format (part, version) VALUES (%s, %s)", (form.part, form.version))
    return form.version
