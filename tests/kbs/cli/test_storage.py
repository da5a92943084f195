"""`kbs storage`, `kbs init --storage postgres`, and what docs/storage.md tells an operator to do."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from kbs import config
from kbs.admin.data_directory import make_tls
from kbs.clock import system_clock
from kbs.errors import KbsError, StorageUnavailable
from kbs.secret import Secret
from kbs.storage.choice import open_rules, open_stores
from kbs.storage.model import Claim
from kbs.storage.postgres.address import read_dsn
from kbs.storage.postgres.database import Database
from kbs.storage.sealed import SealedStore, SealingKeys, read_key
from tests.kbs.cli.conftest import invoke
from tests.postgres_binary import Cluster

DOCS = Path(__file__).parents[3] / "docs/storage.md"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def blocks(language: str) -> list[list[str]]:
    """The statements, or commands, of each block of a language in the document."""
    text = DOCS.read_text("utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
    if language == "sql":
        return [[line.strip() for line in block.split(";") if line.strip()] for block in found]
    return [[line.removeprefix("$ ") for line in block.splitlines()] for block in found]


@pytest.fixture
def over_tls(postgres: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The server listens on loopback with TLS meanwhile; gives the file of its CA."""
    folder = tmp_path / "tls"
    folder.mkdir()
    make_tls(folder, ["db.example"], system_clock())  # libpq asks the real clock
    for name in ("server.pem", "server.key"):
        shutil.copy(folder / name, postgres.data / name)
        owner = postgres.data.stat()
        os.chown(postgres.data / name, owner.st_uid, owner.st_gid)
        os.chmod(postgres.data / name, 0o600)
    settings = {
        "ssl": "on",
        "ssl_cert_file": "server.pem",
        "ssl_key_file": "server.key",
        "listen_addresses": "127.0.0.1",
    }
    postgres.run(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()))
    with postgres.down():
        pass
    yield folder / "ca.pem"
    postgres.run("DROP DATABASE IF EXISTS kbs WITH (FORCE)", "DROP ROLE IF EXISTS kbs_owner", "DROP ROLE IF EXISTS kbs")
    postgres.run("ALTER SYSTEM RESET ALL")
    with postgres.down():
        pass


def test_what_the_document_says(
    postgres: Cluster, over_tls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roles, the tables, TLS with the server's name checked, and that brokers may do no more than they need."""
    monkeypatch.chdir(tmp_path)
    server, schema, revoked = blocks("sql")
    postgres.run(*server)
    postgres.run(*schema, database="kbs")
    address = f"127.0.0.1:{postgres.port}/kbs?sslmode=verify-full&sslrootcert={over_tls}"
    (tmp_path / "owner.dsn").write_text(f"postgresql://kbs_owner:OWNER-PASSWORD@{address}\n")
    (tmp_path / "broker.dsn").write_text(f"postgresql://kbs:BROKER-PASSWORD@{address}\n")
    made, moved = blocks("console")
    for command in made:
        result = invoke(None, *command.split()[1:])
        assert result.exit_code == 0, result.stderr
    postgres.run(*revoked, database="kbs")

    assert invoke(None, "init", "old").exit_code == 0
    old = SealedStore(open_rules(Path("old"), config.load(Path("old"), {}).storage)[0], keys_of(Path("old")))
    old.put("rules", "a", b"first", meta={})
    old.put("rules", "a", b"second", meta={})
    old.close()
    copying, moving = (line.split() for line in moved)
    shutil.copy(copying[1], copying[2])
    result = invoke(None, *moving[1:])
    assert result.exit_code == 0, result.stderr
    assert "2 versions of 1 records" in result.stdout

    stores = open_stores(Path("broker"), config.load(Path("broker"), {}).storage, keys_of(Path("broker")))
    rules = SealedStore(stores.rules, keys_of(Path("broker")))
    found = rules.get("rules", "a", 1)
    assert found is not None
    assert found.value == b"first"
    assert rules.put("rules", "a", b"third", meta={}, expected=2) == 3
    assert rules.delete("rules", "a")
    epoch = stores.handshakes.epoch
    assert stores.handshakes.claim("c", bytes(32), NOW.replace(hour=13), NOW, epoch) is Claim.CLAIMED
    stores.handshakes.finish("c", "token")
    assert stores.handshakes.token("c", NOW) == "token"
    assert stores.handshakes.sweep(NOW.replace(hour=14)) == 1
    database = stores.database
    assert database is not None
    database.use(lambda db: db.execute("INSERT INTO kbs_audit_lines (n, decision, line) VALUES (0, 'd', 'l')"))
    for statement in (
        "DELETE FROM kbs_audit_lines",
        "UPDATE kbs_audit_lines SET line = ''",
        "UPDATE kbs_format SET version = 2",
        "CREATE TABLE mine (a INTEGER)",
        "CREATE TABLE public.mine (a INTEGER)",
        "DROP TABLE kbs_keys",
        "TRUNCATE kbs_claims",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (a INTEGER)",
    ):
        with pytest.raises(StorageUnavailable) as refused:
            database.use(lambda db, statement=statement: db.execute(statement))  # type: ignore[misc]
        assert isinstance(refused.value.__cause__, psycopg.errors.InsufficientPrivilege), statement
    stores.close()


def test_a_server_that_is_somebody_else_is_refused(postgres: Cluster, over_tls: Path, tmp_path: Path) -> None:
    """Another CA, and another name in the certificate than in the address."""
    other = tmp_path / "other"
    other.mkdir()
    make_tls(other, [], system_clock())
    tls = f"port={postgres.port} dbname=postgres user=guarded password=x sslmode=verify-full sslrootcert"
    for text, what in (
        (f"host=127.0.0.1 {tls}={other / 'ca.pem'}", "certificate verify failed"),
        (f"host=elsewhere.example hostaddr=127.0.0.1 {tls}={over_tls}", "elsewhere.example"),
        (f"host=db.example hostaddr=127.0.0.1 {tls}={over_tls}", "password authentication failed"),
    ):
        with pytest.raises(StorageUnavailable) as refused:
            Database(Secret(text.encode())).use(lambda db: db.execute("SELECT 1"))
        assert what in (refused.value.operator_detail or "")


def refusal(*arguments: object) -> str:
    """What a command that fails says; errors of ours are printed by `kbs.cli.main`."""
    try:
        result = invoke(None, *arguments)
    except KbsError as err:
        return f"{err} {err.operator_detail}"
    assert result.exit_code == 2
    return result.stderr


def keys_of(data: Path) -> SealingKeys:
    return SealingKeys([Secret(read_key(data / "keys/sealing.key"))])


@pytest.fixture
def in_postgres(postgres: Cluster, schema: str, tmp_path: Path) -> Path:
    """A data directory on PostgreSQL."""
    (tmp_path / "dsn").write_bytes(postgres.dsn(schema).reveal())
    data = tmp_path / "shared"
    result = invoke(None, "init", data, "--storage", "postgres", "--dsn-file", tmp_path / "dsn")
    assert result.exit_code == 0, result.stderr
    assert config.load(data, {}).storage.dsn_file == tmp_path / "dsn"
    return data


def test_a_copy_there_and_back(in_postgres: Path, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    for data in (here, back):
        assert invoke(None, "init", data).exit_code == 0
    rules, _ = open_rules(here, config.load(here, {}).storage)
    SealedStore(rules, keys_of(here)).put("ns", "k", b"v", meta={})
    rules.close()
    assert "sealing keys differ" in refusal("storage", "copy", "--from", here, "--to", in_postgres)
    for data in (in_postgres, back):
        shutil.copy(here / "keys/sealing.key", data / "keys/sealing.key")
    for source, target in ((here, in_postgres), (in_postgres, back)):
        copied = invoke(None, "storage", "copy", "--from", source, "--to", target, "--json")
        assert json.loads(copied.stdout) == {"from": str(source), "to": str(target), "keys": 1, "versions": 1}
    assert "not empty" in refusal("storage", "copy", "--from", here, "--to", in_postgres)
    prepared = invoke(None, "storage", "prepare", "--dsn-file", tmp_path / "dsn", "--json")
    assert json.loads(prepared.stdout)["formats"] == {"rules": 1, "handshakes": 1, "recent": 1, "audit": 1, "seal": 1}
    assert read_dsn(tmp_path / "dsn")


@pytest.mark.parametrize(
    ("arguments", "dsn", "what"),
    [
        (("--storage", "postgres"), None, "go together"),
        (("--dsn-file", "dsn"), "postgresql:///kbs", "go together"),
        (("--storage", "postgres", "--dsn-file", "dsn"), None, "No such file"),
        (("--storage", "postgres", "--dsn-file", "dsn"), "canary", "expected one line"),
        (("--storage", "postgres", "--dsn-file", "dsn"), "postgresql://u:canary@h.example/d", "verify-full"),
        (("--storage", "postgres", "--dsn-file", "dsn"), "postgresql:///d?host=/nowhere&password=canary", "/nowhere"),
        (("--storage", "oracle"), None, "oracle"),
    ],
    ids=["no file named", "file without storage", "no file", "no address", "not verified", "not there", "unknown"],
)
def test_init_makes_nothing_for_a_database_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], dsn: str | None, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if dsn is not None:
        (tmp_path / "dsn").write_text(dsn)
    text = refusal("init", "data", *arguments)
    assert what in text
    assert "canary" not in text
    assert not (tmp_path / "data").exists()


def test_there_is_nothing_to_copy_in_memory(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert invoke(None, "init", tmp_path / name).exit_code == 0
    with (tmp_path / "one/kbs.toml").open("a") as settings:
        settings.write('\n[storage]\nkind = "memory"\n')
    text = refusal("storage", "copy", "--from", tmp_path / "one", "--to", tmp_path / "two")
    assert "keeps nothing to copy" in text
