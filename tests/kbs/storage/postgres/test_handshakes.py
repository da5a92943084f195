"""Claims of several replicas in one database, and what a crash of it leaves: nothing that can be used twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kbs.errors import StorageUnavailable
from kbs.secret import Secret
from kbs.storage.model import Claim
from kbs.storage.postgres import handshakes
from kbs.storage.postgres.database import Connection, Database
from kbs.storage.postgres.handshakes import PostgresHandshakeStore
from kbs.storage.sealed import SealingKeys
from tests.postgres_binary import Cluster

FORK = multiprocessing.get_context("fork")
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
SECOND = timedelta(seconds=1)
BODY, OTHER = b"\x01" * 32, b"\x02" * 32
KEYS = SealingKeys([Secret(bytes(range(32)))])
OpenStore = Callable[..., PostgresHandshakeStore]


@pytest.fixture
def open_store(new_database: Callable[..., Database]) -> OpenStore:
    def build(keys: SealingKeys = KEYS, *, patience: float = 30.0, sweep_step: int = 2000) -> PostgresHandshakeStore:
        return PostgresHandshakeStore(new_database(), keys, patience=patience, sweep_step=sweep_step)

    return build


def test_replicas_share_epoch_claims_and_tokens(open_store: OpenStore) -> None:
    one, two = open_store(), open_store()
    assert one.epoch == two.epoch
    assert one.claim("c", BODY, LATER, NOW, two.epoch) is Claim.CLAIMED
    assert two.claim("c", BODY, LATER, NOW) is Claim.IN_PROGRESS
    one.finish("c", "token")
    assert two.claim("c", BODY, LATER, NOW) is Claim.FINISHED
    assert two.claim("c", OTHER, LATER, NOW) is Claim.SPENT
    assert two.token("c", NOW) == "token"


def rush(open_store: OpenStore, ids: list[str], report: Path) -> None:
    store = open_store()
    met = [store.claim(name, BODY, LATER, NOW) for name in ids for _ in range(25)]
    report.write_text("\n".join(claim.name for claim in met))


def test_a_hundred_claims_over_processes_and_one_winner(open_store: OpenStore, tmp_path: Path) -> None:
    ids = ["c0", "c1", "c2"]
    reports = [tmp_path / f"met{number}" for number in range(4)]
    children = [FORK.Process(target=rush, args=(open_store, ids, report)) for report in reports]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    met = [name for report in reports for name in report.read_text().split()]
    assert len(met) == 300
    assert met.count("CLAIMED") == 3
    assert met.count("IN_PROGRESS") == 297


def test_a_crash_of_the_server_voids_what_was_open(postgres: Cluster, open_store: OpenStore) -> None:
    one, two = open_store(), open_store()
    epoch = one.epoch
    assert one.claim("answered", BODY, LATER, NOW, epoch) is Claim.CLAIMED
    one.finish("answered", "token")
    assert one.claim("in work", BODY, LATER, NOW, epoch) is Claim.CLAIMED
    with postgres.down("immediate"):
        for call in (
            lambda: one.claim("answered", BODY, LATER, NOW, epoch),
            lambda: one.finish("in work", "token"),
            lambda: one.token("answered", NOW),
            lambda: one.sweep(NOW),
        ):
            with pytest.raises(StorageUnavailable):
                call()
    for store in (two, one):  # also those who still believe in the old epoch
        assert store.claim("answered", BODY, LATER, NOW, epoch) is Claim.VOID
        assert store.claim("never seen", BODY, LATER, NOW, epoch) is Claim.VOID
    assert one.epoch == two.epoch != epoch
    assert one.claim("never seen", BODY, LATER, NOW, epoch) is Claim.VOID  # now that there is a new one, too
    one.finish("in work", "token")
    assert one.token("in work", NOW) is None
    assert two.claim("new", BODY, LATER, NOW, one.epoch) is Claim.CLAIMED


def test_an_orderly_restart_of_the_server_loses_nothing(postgres: Cluster, open_store: OpenStore) -> None:
    store = open_store()
    epoch = store.epoch
    assert store.claim("c", BODY, LATER, NOW, epoch) is Claim.CLAIMED
    store.finish("c", "token")
    with postgres.down():
        pass
    assert store.claim("c", BODY, LATER, NOW, epoch) is Claim.FINISHED
    assert store.token("c", NOW) == "token"
    assert store.epoch == epoch


def test_who_seals_cookies_learns_of_a_new_epoch(
    new_database: Callable[..., Database], open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [1000.0]
    monkeypatch.setattr(handshakes, "monotonic", lambda: at[0])
    store = open_store()
    epoch = store.epoch
    new_database().use(lambda db: db.execute("DELETE FROM kbs_handshakes"))
    at[0] += handshakes.LOOK_EVERY * 0.99
    assert store.epoch == epoch
    at[0] += handshakes.LOOK_EVERY * 0.02
    assert store.epoch != epoch
    assert len(store.epoch) == 16


def test_nobody_seals_cookies_of_an_epoch_that_nobody_confirms(
    new_database: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [1000.0]
    monkeypatch.setattr(handshakes, "monotonic", lambda: at[0])
    database = new_database()
    store = PostgresHandshakeStore(database, KEYS)
    database.close()
    assert len(store.epoch) == 16
    at[0] += handshakes.LOOK_EVERY
    with pytest.raises(StorageUnavailable):
        _ = store.epoch


def test_a_claim_of_a_replica_that_died_is_spent_after_a_while(open_store: OpenStore) -> None:
    patient, hasty = open_store(), open_store(patience=0.0)

    def claim_and_die() -> None:
        patient.claim("soon", BODY, LATER, NOW)
        hasty.claim("late", BODY, LATER, NOW)
        os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=claim_and_die)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert patient.claim("soon", BODY, LATER, NOW) is Claim.IN_PROGRESS
    assert patient.claim("late", BODY, LATER, NOW) is Claim.SPENT


def test_a_claim_whose_end_takes_long_still_ends(open_store: OpenStore) -> None:
    store = open_store(patience=0.0)
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    assert store.claim("c", BODY, LATER, NOW) is Claim.SPENT
    store.finish("c", "token")
    assert store.claim("c", BODY, LATER, NOW) is Claim.FINISHED


def test_a_token_opens_with_its_key_and_in_its_place_only(
    new_database: Callable[..., Database], open_store: OpenStore
) -> None:
    store = open_store()
    for name in ("a", "b"):
        store.claim(name, BODY, LATER, NOW)
        store.finish(name, f"canary of {name}")
    database = new_database()
    kept = database.use(lambda db: db.execute("SELECT token FROM kbs_claims", binary=True).fetchall())
    assert not any(b"canary" in row[0] for row in kept)
    assert open_store(SealingKeys([Secret(b"k" * 32)])).token("a", NOW) is None

    def swap(db: Connection) -> None:
        db.execute("UPDATE kbs_claims SET token = (SELECT token FROM kbs_claims WHERE id = 'a') WHERE id = 'b'")

    database.use(swap)
    assert store.token("b", NOW) is None
    assert store.token("a", NOW) == "canary of a"


def test_a_sweep_goes_in_steps_and_by_one_replica_at_a_time(
    new_database: Callable[..., Database], open_store: OpenStore
) -> None:
    store = open_store(sweep_step=3)
    for number in range(7):
        store.claim(f"c{number}", BODY, LATER, NOW)

    def while_another_sweeps(db: Connection) -> None:
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(4932180::bigint << 32 | 'kbs_claims'::regclass::oid::bigint)")
            assert store.sweep(LATER) == 0

    new_database().use(while_another_sweeps)
    assert store.sweep(LATER) == 7
    assert store.sweep(LATER) == 0


def test_a_claim_waits_for_what_forgets_it(new_database: Callable[..., Database], open_store: OpenStore) -> None:
    """A challenge that is being swept at this moment is not claimed once more behind the sweep's back."""
    store = open_store()
    store.claim("c", BODY, LATER, NOW)
    sweeper = new_database()

    def sweep(db: Connection, claim: Callable[[], Future[Claim]]) -> Future[Claim]:
        with db.transaction():
            micros = (LATER - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            assert db.execute("SELECT kbs_sweep(%s::bigint, 10)", (micros,)).fetchone() == (1,)
            claiming = claim()
            with pytest.raises(TimeoutError):
                claiming.result(0.1)  # it waits for the end of this transaction
        return claiming

    with ThreadPoolExecutor(1) as thread:
        claiming = sweeper.use(lambda db: sweep(db, lambda: thread.submit(store.claim, "c", BODY, LATER, NOW)))
        assert claiming.result(30) is Claim.SPENT


def test_a_batch_is_done_whole_or_not_at_all(postgres: Cluster, open_store: OpenStore) -> None:
    store = open_store()
    for name in ("a", "b"):
        store.claim(name, BODY, LATER, NOW)

    def settle() -> None:
        with store.together():
            store.finish("a", "token")
            store.refuse("b")

    with postgres.down(), pytest.raises(StorageUnavailable):
        settle()
    assert store.claim("a", BODY, LATER, NOW) is Claim.IN_PROGRESS
    assert store.claim("b", BODY, LATER, NOW) is Claim.IN_PROGRESS
    settle()
    assert store.token("a", NOW) == "token"
    assert store.claim("b", BODY, LATER, NOW) is Claim.SPENT


@pytest.mark.parametrize("damage", ["state = 'free'", "state = 'claimed '", "state = 'finished', digest = NULL"])
def test_a_damaged_claim_is_a_fault_of_the_store(
    new_database: Callable[..., Database], open_store: OpenStore, damage: str
) -> None:
    """Never a claim, and no bug of ours to whoever asks."""
    store, database = open_store(), new_database()
    assert store.claim("c", BODY, LATER, NOW) is Claim.CLAIMED
    database.use(lambda db: db.execute("ALTER TABLE kbs_claims ALTER COLUMN digest DROP NOT NULL"))
    database.use(lambda db: db.execute(f"UPDATE kbs_claims SET {damage}"))
    with pytest.raises(StorageUnavailable) as refused:
        store.claim("c", BODY, LATER, NOW)
    assert "a damaged row of kbs_claims" in str(refused.value.operator_detail)
