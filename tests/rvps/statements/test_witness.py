"""A store that was set back, and events that others were never told of."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.service import EmbeddedProvider
from rvps.statements.witness import WitnessFile
from tests.rvps.fake_intake import KIND, FakeIntake, everybody, message, publisher, stating
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable

AT = datetime(2026, 11, 21, tzinfo=UTC)
PUBLISHERS = everybody(publisher("acme"))
ADMIN = "admin:alice#1"


def over(store: MemoryStore, witness: Path | None = None) -> EmbeddedProvider:
    return EmbeddedProvider(
        store,
        conflict=Conflict,
        unavailable=Unavailable,
        publishers=lambda: PUBLISHERS,
        intakes={KIND: FakeIntake()},
        witness=None if witness is None else WitnessFile(witness),
    )


def state_one(provider: EmbeddedProvider, serial: int) -> str:
    return provider.submit(message("acme/1", stating(serial, {"n": [serial]})), AT).status.id


def test_a_store_put_back_is_noticed_after_a_restart_and_accepted_by_name(tmp_path: Path) -> None:
    """Threat-model P-RULE-5: copy the store, revoke, put the copy back, start: not ready, clear message."""
    store, witness = MemoryStore(), tmp_path / "newest"
    statement = state_one(over(store, witness), 1)
    backup = dict(store.current)
    over(store, witness).revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    assert over(store, witness).query("n", AT) is None
    store.current = backup
    with pytest.raises(ProviderUnavailable, match=f"set back: it ends before event {2:016d}.*remove {witness}"):
        over(store, witness).query("n", AT)
    with pytest.raises(ProviderUnavailable, match="set back"):
        state_one(over(store, witness), 2)
    witness.unlink()
    assert over(store, witness).query("n", AT) == [1]


def test_another_history_of_the_same_length_is_noticed(tmp_path: Path) -> None:
    store, other, witness = MemoryStore(), MemoryStore(), tmp_path / "newest"
    state_one(over(store, witness), 1)
    state_one(over(other), 2)
    with pytest.raises(ProviderUnavailable, match="another in its place"):
        over(other, witness).query("n", AT)


def test_an_empty_store_in_place_of_a_used_one_is_noticed(tmp_path: Path) -> None:
    witness = tmp_path / "newest"
    state_one(over(MemoryStore(), witness), 1)
    with pytest.raises(ProviderUnavailable, match="set back"):
        over(MemoryStore(), witness).snapshot(AT)


def test_removed_events_are_not_missed(tmp_path: Path) -> None:
    store, witness = MemoryStore(), tmp_path / "newest"
    provider = over(store, witness)
    for number in range(200):
        provider.register(
            {"type": "sample", "payload": "eyJuIjogMX0="}, issuer=ADMIN, at=AT + timedelta(seconds=number)
        )
    assert len(store.statements()) < 100
    assert over(store, witness).query("n", AT + timedelta(seconds=300)) == 1


def test_several_processes_keep_the_highest_number(tmp_path: Path) -> None:
    witness = tmp_path / "newest"
    one, other = WitnessFile(witness), WitnessFile(witness)
    one.saw(5, "5" * 64)
    other.saw(4, "4" * 64)
    assert other.seen() == one.seen() == (5, "5" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]
    assert stat.S_IMODE(witness.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"\0" * 82, b"1 abc\n", b"x" * 500], ids=["empty", "zeros", "short", "long"])
def test_a_witness_that_does_not_read_is_told_and_nothing_is_used(tmp_path: Path, content: bytes) -> None:
    witness = tmp_path / "newest"
    witness.write_bytes(content)
    with pytest.raises(ProviderUnavailable, match="does not read; to accept"):
        over(MemoryStore(), witness).snapshot(AT)


def test_a_witness_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    provider = over(MemoryStore(), tmp_path / "missing" / "newest")
    state_one(provider, 1)
    assert provider.query("n", AT) == [1]
    assert "not remembered" in caplog.text
    assert os.listdir(tmp_path) == []


def failing_at_the_head(namespace: str, _key: str) -> None:
    if namespace == "rvps-head":
        raise Unavailable


def test_a_revocation_without_its_head_reaches_every_process_once_somebody_relies_on_it() -> None:
    """The record is written, its head is not: the store failed in between, or the process was killed. Whoever asks
    again is told that the statement is revoked; until then no other process may know, from then on all must."""
    store = MemoryStore()
    first, second, third = (over(store) for _ in range(3))
    statement = state_one(first, 1)
    for provider in (first, second, third):
        assert provider.query("n", AT) == [1]
    store.before_put = failing_at_the_head
    with pytest.raises(ProviderUnavailable):
        first.revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    with pytest.raises(ProviderUnavailable):  # neither yes nor no as long as the others cannot be told
        second.revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    store.before_put = None
    with pytest.raises(StatementUnacceptable, match="revoked already"):
        second.revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    assert [provider.query("n", AT) for provider in (first, second, third)] == [None, None, None]


def test_whoever_starts_after_a_crash_tells_the_others() -> None:
    store = MemoryStore()
    running, crashing = over(store), over(store)
    statement = state_one(running, 1)
    assert running.query("n", AT) == [1]
    store.before_put = failing_at_the_head
    with pytest.raises(ProviderUnavailable):
        crashing.revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    assert over(store).query("n", AT) is None  # cannot tell: knows all the same
    store.before_put = None
    assert over(store).query("n", AT) is None
    assert running.query("n", AT) is None


def test_a_process_that_could_not_tell_does_so_when_it_can() -> None:
    store = MemoryStore()
    other, failing = over(store), over(store)
    statement = state_one(other, 1)
    store.before_put = failing_at_the_head
    with pytest.raises(ProviderUnavailable):
        failing.revoke(statement, reason="leaked", issuer=ADMIN, at=AT)
    store.before_put = None
    assert failing.query("n", AT) is None
    assert other.query("n", AT) is None
