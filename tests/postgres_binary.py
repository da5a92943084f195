"""Finds PostgreSQL for tests that need a real server, and runs a throw-away cluster. Without it they are skipped and
counted; REQUIRE_POSTGRES=1: they fail.

One cluster for each worker of pytest, started at first use: on a Unix socket, without passwords, without flushes. A
test gets a schema of its own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

from kbs.secret import Secret
from kbs.storage.postgres.database import Database, Limits

_ACCOUNT = "postgres"


def find_postgres() -> Path | None:
    """The folder of `initdb` and `postgres`: KBS_POSTGRES, PATH, or where Debian puts them; the newest."""
    found = shutil.which("initdb")
    folders = [os.environ.get("KBS_POSTGRES"), found and str(Path(found).parent)]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(4))
    for folder in (*folders, *(str(path) for path in reversed(debian))):
        if folder and all(os.access(Path(folder) / name, os.X_OK) for name in ("initdb", "postgres")):
            return Path(folder)
    return None


@dataclass(slots=True)
class Cluster:
    """One server with its files in `folder`. The role `guarded` needs a password, the others only the socket."""

    programs: Path
    folder: Path
    port: int  # names the socket; over TCP it listens only if a test makes it

    def make(self) -> None:
        """Make the files; the administrator is `admin`, and who connects over the socket is believed."""
        user, group = _runner()
        if user is not None and group is not None:
            os.chown(self.folder, user, group)
        self._run("initdb", "-A", "trust", "-U", "admin", "-E", "UTF8", "--locale", "C", "-N", "-D", str(self.data))
        with (self.data / "postgresql.conf").open("a") as conf:
            quick = ("fsync = off", "shared_buffers = 16MB", "max_connections = 60", "listen_addresses = ''")
            unix = (f"unix_socket_directories = '{self.folder}'", "autovacuum = off", "max_wal_senders = 0")
            conf.write("\n".join((*quick, "wal_level = minimal", *unix, f"port = {self.port}", "")))
        rules = "local all guarded scram-sha-256\nlocal all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def dsn(self, schema: str = "public", user: str = "admin") -> Secret:
        """The address of one schema."""
        text = f"postgresql://{user}@/postgres?host={self.folder}&port={self.port}&options=-csearch_path%3D{schema}"
        return Secret(text.encode())

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the administrator."""
        with psycopg.connect(self.dsn().reveal().decode(), dbname=database, autocommit=True) as db:
            for statement in statements:
                db.execute(statement)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "-s", "-w", "-t", "60", "-D", str(self.data), "-l", str(self.folder / "log"), "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it; `immediate` is as a crash: no check point, unlogged tables are empty afterwards."""
        self._run("pg_ctl", "-s", "-w", "-t", "60", "-D", str(self.data), "-m", how, "stop")

    @contextmanager
    def down(self, how: str = "fast") -> Iterator[None]:
        """Stopped inside, and running again afterwards."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    def pid(self) -> int:
        """The server's process."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its children."""
        children = Path(f"/proc/{self.pid()}/task/{self.pid()}/children").read_text().split()
        for process in (self.pid(), *map(int, children)):
            os.kill(process, number)

    def _run(self, program: str, *arguments: str) -> None:
        user, group = _runner()
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
            cwd=self.folder,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
        assert done.returncode == 0, (program, done.stderr.decode(errors="replace"))


def _runner() -> tuple[int | None, int | None]:
    """PostgreSQL does not run as root: then as the account its package makes, or as nobody."""
    if os.getuid() != 0:
        return None, None
    for name in (_ACCOUNT, "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return account.pw_uid, account.pw_gid
    return None, None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running server; a test that stops it starts it again."""
    programs = find_postgres()
    if programs is None:
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail("REQUIRE_POSTGRES=1, and there is no initdb (KBS_POSTGRES, PATH, /usr/lib/postgresql)")
        pytest.skip("needs postgres")
    # not below pytest's folder: its path may be too long for a socket, and others may not enter it
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        cluster = Cluster(programs, Path(folder), port=20_000 + os.getpid() % 10_000)
        cluster.make()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")


_NUMBERS = count(1)


@pytest.fixture
def schema(postgres: Cluster) -> str:
    """A schema of the test's own."""
    name = f"test{next(_NUMBERS)}"
    postgres.run(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture
def new_database(postgres: Cluster, schema: str) -> Iterator[Callable[..., Database]]:
    """Opens the test's schema, as one more process would; time-outs are short."""
    made: list[Database] = []

    def build(*, connections: int = 4, limits: Limits | None = None) -> Database:
        made.append(Database(postgres.dsn(schema), connections=connections, limits=limits or Limits(rest=0.0)))
        return made[-1]

    yield build
    for database in made:
        database.close()


def summarize(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of PostgreSQL."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = [report for report in skipped if "needs postgres" in str(report.longrepr)]
    if missed:
        terminalreporter.write_line(
            f"{len(missed)} PostgreSQL tests did not run: no server here; `make postgres` gets it"
        )
