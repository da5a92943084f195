"""How much one publisher may fill, and what its history costs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rvps.errors import StatementUnacceptable
from rvps.service import EmbeddedProvider
from rvps.statements import admission
from tests.rvps.fake_intake import KIND, FakeIntake, digest, everybody, message, publisher, stating
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable
from tests.rvps.test_service import sample

AT = datetime(2026, 11, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> EmbeddedProvider:
    monkeypatch.setattr(admission, "MAX_SNAPSHOT", 1000)
    known = everybody(publisher("acme"))
    return EmbeddedProvider(
        MemoryStore(),
        conflict=Conflict,
        unavailable=Unavailable,
        publishers=lambda: known,
        intakes={KIND: FakeIntake()},
    )


def put(provider: EmbeddedProvider, serial: int, size: int, at: datetime = AT, **members: Any) -> dict[str, Any]:
    said = stating(serial, {"n": "x" * size}, **members)
    provider.submit(message("acme/1", said), at)
    return said


def test_values_fill_no_more_than_a_snapshot_may_hold(provider: EmbeddedProvider) -> None:
    put(provider, 1, 400, series="a")
    put(provider, 1, 400, series="b")
    for size in (400, 177):
        with pytest.raises(StatementUnacceptable, match="no room"):
            put(provider, 1, size, series="c")
        with pytest.raises(StatementUnacceptable, match="no room"):
            provider.register(sample({"n": "x" * size}), issuer="admin:a#1", at=AT)
    put(provider, 1, 176, series="c")
    assert len(provider.snapshot(AT).encoded) <= 1000


def test_a_compound_set_counts_under_each_of_its_names(provider: EmbeddedProvider) -> None:
    values = {f"n{number}": "x" * 20 for number in range(8)}
    with pytest.raises(StatementUnacceptable, match=r"no room.*each of its names"):
        provider.submit(message("acme/1", stating(1, values, together=True)), AT)
    provider.submit(message("acme/1", stating(1, values)), AT)
    few = dict(list(values.items())[:3])
    provider.submit(message("acme/1", stating(1, few, series="b", together=True)), AT)
    snapshot = provider.snapshot(AT)
    assert len(snapshot.encoded) + len(snapshot.encoded_sets) <= 1000


def test_what_is_over_makes_room(provider: EmbeddedProvider) -> None:
    for serial in range(1, 20):
        put(provider, serial, 600)  # each takes the place of the one before
        with pytest.raises(StatementUnacceptable, match="no room"):
            put(provider, 1, 600, series="b")
    revocation = {"revoke": digest(stating(19, {"n": "x" * 600})), "reason": "because"}
    provider.submit(message("acme/1", revocation), AT)
    put(provider, 1, 600, series="c", until=AT + SECOND)
    put(provider, 1, 600, series="d", at=AT + SECOND)
    provider.withdraw("n", issuer="admin:a#1", at=AT + SECOND)


def test_known_bad_values_in_every_release_cost_no_more_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept for ever. With a cost that grows with the cube of their number, a thousand would take a minute."""
    known = everybody(publisher("acme"))
    provider = EmbeddedProvider(
        MemoryStore(),
        conflict=Conflict,
        unavailable=Unavailable,
        publishers=lambda: known,
        intakes={KIND: FakeIntake()},
    )
    began = time.process_time()
    for serial in range(1, 501):
        said = stating(serial, {"n": [serial]}, bad={"n": [-serial]})
        provider.submit(message("acme/1", said), AT + serial * SECOND)
    assert time.process_time() - began < 20  # about one; before, fifty
    assert provider.query("n", AT + 500 * SECOND) == [500]
