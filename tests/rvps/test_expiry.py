"""What runs out: whose word counts, at which moment, and who is told how often."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from rvps.errors import ProviderUnavailable
from rvps.expiry import ExpiryWatch
from rvps.model import Snapshot
from rvps.service import EmbeddedProvider
from tests.rvps.memory_store import MemoryStore
from tests.rvps.test_service import ALICE, AT, SECOND, provider_over, sample

DAY = timedelta(days=1)


@pytest.fixture
def provider() -> EmbeddedProvider:
    found = provider_over(MemoryStore())
    found.register(sample({"a": ["1"], "b": 2}, expiration="2026-12-01T10:00:00Z"), issuer=ALICE, at=AT)
    return found


def test_what_ends_within_the_time_and_nothing_else(provider: EmbeddedProvider) -> None:
    provider.register(sample({"c": 3}, expiration="2027-06-01T10:00:00Z"), issuer=ALICE, at=AT)
    assert provider.expiring(AT, 10 * DAY - SECOND) == []
    (found,) = provider.expiring(AT, 10 * DAY)
    assert (found.names, found.issuer, found.expired) == (("a", "b"), ALICE, False)
    assert [one.names for one in provider.expiring(AT, 365 * DAY)] == [("a", "b"), ("c",)]
    (gone,) = provider.expiring(AT + 10 * DAY, timedelta(0))
    assert (gone.names, gone.expired) == (("a", "b"), True)


def test_what_was_restated_or_withdrawn_does_not_end(provider: EmbeddedProvider) -> None:
    provider.register(sample({"a": ["1"]}, expiration="2027-06-01T10:00:00Z"), issuer=ALICE, at=AT + SECOND)
    (found,) = provider.expiring(AT + SECOND, 30 * DAY)
    assert found.names == ("b",)
    provider.withdraw("b", issuer=ALICE, at=AT + SECOND)
    assert provider.expiring(AT + SECOND, 30 * DAY) == []


def test_one_line_for_each_threshold(provider: EmbeddedProvider, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[float] = []
    watch = ExpiryWatch(provider, shown.append)
    told = []
    with caplog.at_level(logging.WARNING, "rvps.expiry"):
        for moment in (AT, AT + SECOND, AT + 4 * DAY, AT + 5 * DAY, AT + 9 * DAY, AT + 10 * DAY, AT + 11 * DAY):
            caplog.clear()
            watch.look(moment)
            told.append([record.getMessage() for record in caplog.records])
    soon, over = ["reference values expire soon"], ["reference values have expired"]
    assert told == [soon, [], soon, [], soon, over, []]
    assert shown[0] == (AT + 10 * DAY).timestamp()


def test_the_metric_follows_changes_at_most_once_a_minute(provider: EmbeddedProvider) -> None:
    shown: list[float] = []
    watch = ExpiryWatch(provider, shown.append)
    watch.look(AT)
    provider.register(sample({"c": 1}, expiration="2026-11-22T10:00:00Z"), issuer=ALICE, at=AT)
    watch.look(AT + 59 * SECOND)
    assert len(shown) == 1
    watch.look(AT + 60 * SECOND)
    assert shown[1:] == [(AT + DAY).timestamp()]
    for name in ("a", "b", "c"):
        provider.withdraw(name, issuer=ALICE, at=AT + 60 * SECOND)
    watch.look(AT + 120 * SECOND)
    assert shown[2:] == [0.0]


def test_a_provider_that_is_away_is_asked_again() -> None:
    class Away(EmbeddedProvider):
        def snapshot(self, at: object) -> Snapshot:
            raise ProviderUnavailable("away")

    shown: list[float] = []
    away = Away(MemoryStore(), conflict=KeyError, unavailable=OSError)
    ExpiryWatch(away, shown.append).look(AT)
    assert shown == []
