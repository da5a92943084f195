"""The embedded provider: what is valid, when, and for whom."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kbs.storage import model as broker_storage
from rvps.client import ReferenceValueProvider, embedded
from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.service import EmbeddedProvider
from rvps.statements.log import KEPT_STATEMENTS, KeyValueStore
from tests.rvps.memory_store import Conflict, MemoryStore, Unavailable

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALICE = "admin:alice#1"


def sample(values: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return {"version": "0.1.0", "type": "sample", "payload": payload, **members}


def provider_over(store: KeyValueStore) -> EmbeddedProvider:
    return EmbeddedProvider(store, conflict=Conflict, unavailable=Unavailable)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def provider(store: MemoryStore) -> EmbeddedProvider:
    return provider_over(store)


def fits_the_port(store: broker_storage.KeyValueStore) -> ReferenceValueProvider:
    """The type checker proves that the broker's store fits `rvps.statements.log.KeyValueStore`."""
    return embedded(store, conflict=Conflict, unavailable=Unavailable)


def test_what_is_registered_is_in_the_snapshot_and_in_its_encoded_form(provider: EmbeddedProvider) -> None:
    written = provider.register(sample({"svn": ["1"], "major_version": 1}), issuer=ALICE, at=AT)
    found = provider.snapshot(AT)
    assert dict(found.values) == {"svn": ["1"], "major_version": 1}
    assert found.encoded == b'{"major_version":1,"svn":["1"]}'
    assert {value.name for value in written} == {"svn", "major_version"}
    assert {value.issuer for value in written} == {ALICE}
    assert len({value.statement for value in written}) == 1


def test_an_empty_store_gives_an_empty_snapshot(provider: EmbeddedProvider) -> None:
    found = provider.snapshot(AT)
    assert (dict(found.values), found.encoded, found.valid_until) == ({}, b"{}", None)
    assert provider.query("svn", AT) is None
    assert provider.list(AT) == []


def test_a_value_lives_twelve_calendar_months(provider: EmbeddedProvider) -> None:
    provider.register(sample({"svn": ["1"]}), issuer=ALICE, at=AT)
    end = datetime(2027, 11, 21, 10, 0, tzinfo=UTC)
    assert provider.snapshot(AT).valid_until == end
    assert provider.query("svn", end - SECOND) == ["1"]
    assert provider.query("svn", end) is None
    assert "svn" not in provider.snapshot(end).values
    assert [value.valid_until for value in provider.list(end)] == [end]


def test_a_given_expiration_stands(provider: EmbeddedProvider) -> None:
    provider.register(sample({"svn": ["1"]}, expiration="2026-11-21T10:00:05Z"), issuer=ALICE, at=AT)
    assert provider.query("svn", AT + 4 * SECOND) == ["1"]
    assert provider.query("svn", AT + 5 * SECOND) is None
    assert provider.query("svn", AT) == ["1"], "a clock that steps back sees the value again"


def test_nothing_is_valid_before_it_was_stated(provider: EmbeddedProvider) -> None:
    provider.register(sample({"svn": ["1"]}), issuer=ALICE, at=AT)
    assert provider.query("svn", AT - SECOND) is None
    assert provider.snapshot(AT - SECOND).valid_until == AT
    assert provider.query("svn", AT) == ["1"]


@pytest.mark.parametrize("expiration", ["2026-11-21T10:00:00Z", "2020-01-01T00:00:00Z"])
def test_an_expired_statement_is_refused_and_nothing_is_stored(
    provider: EmbeddedProvider, store: MemoryStore, expiration: str
) -> None:
    with pytest.raises(StatementUnacceptable, match="has passed"):
        provider.register(sample({"svn": ["1"]}, expiration=expiration), issuer=ALICE, at=AT)
    assert store.changes == 0


def test_the_newest_statement_decides_even_after_it_expired(provider: EmbeddedProvider) -> None:
    provider.register(sample({"svn": ["old"]}), issuer=ALICE, at=AT)
    provider.register(sample({"svn": ["new"]}, expiration="2026-11-21T10:00:05Z"), issuer=ALICE, at=AT)
    assert provider.query("svn", AT) == ["new"]
    assert provider.query("svn", AT + 5 * SECOND) is None


def test_one_bad_name_refuses_the_whole_statement(provider: EmbeddedProvider, store: MemoryStore) -> None:
    with pytest.raises(StatementUnacceptable):
        provider.register(sample({"good": 1, "bad\n": 2}), issuer=ALICE, at=AT)
    assert store.changes == 0
    assert dict(provider.snapshot(AT).values) == {}


def test_an_empty_message_is_taken_and_stores_nothing(provider: EmbeddedProvider, store: MemoryStore) -> None:
    assert provider.register(sample({}), issuer=ALICE, at=AT) == ()
    assert store.changes == 0


def test_withdrawing_takes_one_name_at_once(provider: EmbeddedProvider) -> None:
    provider.register(sample({"a": 1, "b": 2}), issuer=ALICE, at=AT)
    assert provider.withdraw("a", issuer=ALICE, at=AT) is True
    assert dict(provider.snapshot(AT).values) == {"b": 2}
    assert [value.name for value in provider.list(AT)] == ["b"]
    assert provider.withdraw("a", issuer=ALICE, at=AT) is False
    assert provider.withdraw("never", issuer=ALICE, at=AT) is False
    provider.register(sample({"a": 3}), issuer=ALICE, at=AT)
    assert provider.query("a", AT) == 3


def test_withdrawing_what_expired_removes_it_from_the_listing(provider: EmbeddedProvider) -> None:
    provider.register(sample({"a": 1}, expiration="2026-11-21T10:00:05Z"), issuer=ALICE, at=AT)
    assert provider.withdraw("a", issuer=ALICE, at=AT + 60 * SECOND) is True
    assert provider.list(AT) == []
    assert provider.query("a", AT + SECOND) is None


def test_version_changes_exactly_with_the_set_of_values(provider: EmbeddedProvider, store: MemoryStore) -> None:
    empty = provider.snapshot(AT).version
    provider.register(sample({"a": {"x": 1, "y": 2}}), issuer=ALICE, at=AT)
    first = provider.snapshot(AT).version
    provider.register(sample({"a": {"y": 2, "x": 1}}), issuer="admin:bob#2", at=AT + SECOND)
    assert provider.snapshot(AT + SECOND).version == first, "the same values by another administrator"
    provider.register(sample({"b": 1}, expiration="2026-11-21T10:00:05Z"), issuer=ALICE, at=AT)
    with_b = provider.snapshot(AT + SECOND).version
    assert len({empty, first, with_b}) == 3
    assert provider.snapshot(AT + 5 * SECOND).version == first, "b has expired"
    provider.withdraw("a", issuer=ALICE, at=AT)
    assert provider.snapshot(AT + 5 * SECOND).version == empty
    assert provider_over(store).snapshot(AT + 5 * SECOND).version == empty


def test_the_same_object_is_returned_until_something_changes(provider: EmbeddedProvider, store: MemoryStore) -> None:
    provider.register(sample({"a": 1}), issuer=ALICE, at=AT)
    first = provider.snapshot(AT)
    store.calls.clear()
    assert all(provider.snapshot(AT + n * SECOND) is first for n in range(50))
    assert store.calls == [], "the steady state reads the change token only"
    store.put("resources", "a/b/c", b"x", meta={})
    store.calls.clear()
    assert provider.snapshot(AT) is first, "another part of the store changed"
    assert store.calls == ["get"]


def test_two_processes_see_each_other(store: MemoryStore) -> None:
    one, two = provider_over(store), provider_over(store)
    one.register(sample({"a": 1, "b": 1}), issuer=ALICE, at=AT)
    assert two.query("a", AT) == 1
    two.register(sample({"a": 2}), issuer=ALICE, at=AT)
    store.calls.clear()
    assert one.query("a", AT) == 2
    assert "entries" not in store.calls, "one new statement is found without listing all"
    one.withdraw("b", issuer=ALICE, at=AT)
    assert dict(two.snapshot(AT).values) == {"a": 2}
    for n in range(3 * KEPT_STATEMENTS):
        one.register(sample({"a": n, f"n{n}": n}), issuer=ALICE, at=AT)
    assert two.snapshot(AT).values == one.snapshot(AT).values
    assert two.query("a", AT) == 3 * KEPT_STATEMENTS - 1


def test_a_slow_writer_does_not_overwrite_a_faster_one(store: MemoryStore) -> None:
    slow, fast = provider_over(store), provider_over(store)

    def interrupt(namespace: str, key: str) -> None:
        store.before_put = None
        fast.register(sample({"a": "fast", "b": "fast"}), issuer=ALICE, at=AT)

    store.before_put = interrupt
    slow.register(sample({"a": "slow"}), issuer=ALICE, at=AT)
    expected = {"a": "slow", "b": "fast"}
    for provider in (slow, fast, provider_over(store)):
        assert dict(provider.snapshot(AT).values) == expected
    assert len(store.statements()) == 2


def test_a_writer_overtaken_by_hundreds_still_has_the_last_word(store: MemoryStore) -> None:
    slow, fast = provider_over(store), provider_over(store)
    slow.snapshot(AT)

    def interrupt(namespace: str, key: str) -> None:
        store.before_put = None
        for n in range(2 * KEPT_STATEMENTS):  # the number that `slow` is about to take is used and removed again
            fast.register(sample({"a": n}), issuer=ALICE, at=AT)
        assert f"{1:016d}" not in store.statements()

    store.before_put = interrupt
    slow.register(sample({"a": "slow"}), issuer=ALICE, at=AT)
    for provider in (slow, fast, provider_over(store)):
        assert provider.query("a", AT) == "slow"


def test_withdrawal_looks_again_when_another_writer_was_faster(store: MemoryStore) -> None:
    slow, fast = provider_over(store), provider_over(store)
    slow.register(sample({"a": 1}), issuer=ALICE, at=AT)

    def interrupt(namespace: str, key: str) -> None:
        store.before_put = None
        fast.withdraw("a", issuer=ALICE, at=AT)

    store.before_put = interrupt
    assert slow.withdraw("a", issuer=ALICE, at=AT) is False
    assert slow.query("a", AT) is None


def test_endless_contention_is_try_later(store: MemoryStore) -> None:
    provider = provider_over(store)
    other = provider_over(store)

    def interrupt(namespace: str, key: str) -> None:
        store.before_put = None
        other.register(sample({"z": len(store.calls)}), issuer=ALICE, at=AT)
        store.before_put = interrupt

    store.before_put = interrupt
    with pytest.raises(ProviderUnavailable, match="writers"):
        provider.register(sample({"a": 1}), issuer=ALICE, at=AT)
    assert "a" not in other.snapshot(AT).values


def test_a_writer_that_dies_before_its_head_blocks_nobody(store: MemoryStore) -> None:
    first, second = provider_over(store), provider_over(store)
    first.register(sample({"a": 1}), issuer=ALICE, at=AT)
    second.snapshot(AT)

    def die(namespace: str, key: str) -> None:
        if namespace == "rvps-head":
            raise Unavailable

    store.before_put = die
    with pytest.raises(ProviderUnavailable):
        first.register(sample({"a": 2, "b": 2}), issuer=ALICE, at=AT)
    store.before_put = None
    second.register(sample({"c": 3}), issuer=ALICE, at=AT)
    for provider in (first, second, provider_over(store)):
        assert dict(provider.snapshot(AT).values) == {"a": 2, "b": 2, "c": 3}


def test_statements_that_decide_about_nothing_are_removed(store: MemoryStore, provider: EmbeddedProvider) -> None:
    provider.register(sample({"kept": 0}), issuer=ALICE, at=AT)
    for n in range(4 * KEPT_STATEMENTS):
        provider.register(sample({"a": n}), issuer=ALICE, at=AT)
    assert len(store.statements()) == KEPT_STATEMENTS + 1
    assert dict(provider_over(store).snapshot(AT).values) == {"kept": 0, "a": 4 * KEPT_STATEMENTS - 1}


@pytest.mark.parametrize("restart", [False, True])
def test_a_withdrawal_outlives_what_it_withdraws_and_then_goes(store: MemoryStore, restart: bool) -> None:
    provider = provider_over(store)
    provider.register(sample({"a": 1, "b": 1}), issuer=ALICE, at=AT)
    provider.withdraw("a", issuer=ALICE, at=AT)
    for n in range(2 * KEPT_STATEMENTS):
        provider.register(sample({"c": n}), issuer=ALICE, at=AT)
    assert store.statements()[:2] == [f"{1:016d}", f"{2:016d}"], "b keeps 1, and 1 keeps the withdrawal of a"
    if restart:
        provider = provider_over(store)
    assert provider.query("a", AT) is None
    provider.register(sample({"b": 2}), issuer=ALICE, at=AT)
    provider.register(sample({"c": "last"}), issuer=ALICE, at=AT)
    provider.register(sample({"c": "very last"}), issuer=ALICE, at=AT)
    assert not {f"{1:016d}", f"{2:016d}"} & set(store.statements())
    assert dict(provider_over(store).snapshot(AT).values) == {"b": 2, "c": "very last"}


def test_history_tells_who_said_what(provider: EmbeddedProvider) -> None:
    provider.register(sample({"a": 1, "b": 0}), issuer="admin:alice#1", at=AT)
    provider.register(sample({"a": 2}), issuer="admin:bob#2", at=AT + SECOND)
    provider.withdraw("a", issuer="admin:carol#3", at=AT + 2 * SECOND)
    told = provider.history("a")
    assert [(value.value, value.issuer) for value in told] == [
        (1, "admin:alice#1"),
        (2, "admin:bob#2"),
        (None, "admin:carol#3"),
    ]
    assert not any(told[2].is_valid(AT + n * SECOND) for n in range(5))


def test_a_store_that_is_down_is_try_later_everywhere(store: MemoryStore, provider: EmbeddedProvider) -> None:
    provider.register(sample({"a": 1}), issuer=ALICE, at=AT)
    provider.snapshot(AT)
    store.down = True
    with pytest.raises(ProviderUnavailable):
        provider.snapshot(AT)
    with pytest.raises(ProviderUnavailable):
        provider.query("a", AT)
    with pytest.raises(ProviderUnavailable):
        provider.list(AT)
    with pytest.raises(ProviderUnavailable):
        provider.history("a")
    with pytest.raises(ProviderUnavailable):
        provider.register(sample({"a": 2}), issuer=ALICE, at=AT)
    with pytest.raises(ProviderUnavailable):
        provider.withdraw("a", issuer=ALICE, at=AT)
    store.down = False
    assert provider.query("a", AT) == 1


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"format":2,"type":"sample","issuer":"x","received":"2026-11-21T10:00:00Z","valid_until":"2027-11-21T10:00:00Z","values":{}}',
        b'{"format":1,"type":"sample","issuer":"x","received":"yesterday","valid_until":"2027-11-21T10:00:00Z","values":{}}',
        b'{"format":1,"type":"sample","issuer":"x","received":7,"valid_until":"2027-11-21T10:00:00Z","values":{}}',
        b'{"format":1,"type":"sample","issuer":"x","received":"2026-11-21T10:00:00Z","valid_until":"2027-11-21T10:00:00Z","values":[]}',
    ],
)
def test_a_stored_statement_that_does_not_read_stops_all_answers(store: MemoryStore, record: bytes) -> None:
    """It may have been the withdrawal of a value: skipping it could bring the value back."""
    provider_over(store).register(sample({"a": 1}), issuer=ALICE, at=AT)
    store.put("rvps-statements", f"{2:016d}", record, meta={})
    with pytest.raises(ProviderUnavailable, match="0000000000000002"):
        provider_over(store).snapshot(AT)


def test_a_store_restored_from_a_backup_is_refused_until_somebody_starts_anew(
    store: MemoryStore, provider: EmbeddedProvider
) -> None:
    """Threat-model P-RULE-5."""
    provider.register(sample({"a": 1}), issuer=ALICE, at=AT)
    backup = dict(store.current)
    provider.register(sample({"a": 2}), issuer=ALICE, at=AT)
    assert provider.query("a", AT) == 2
    store.current = backup
    store.changes += 1
    for _ in range(2):
        with pytest.raises(ProviderUnavailable, match=r"set back.*start anew"):
            provider.query("a", AT)
        with pytest.raises(ProviderUnavailable, match="set back"):
            provider.register(sample({"a": 3}), issuer=ALICE, at=AT)
    assert provider_over(store).query("a", AT) == 1


def test_deepest_and_longest_written_values_survive_the_store(store: MemoryStore) -> None:
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    payload = base64.b64encode(b'{"grown":[' + b",".join([b"1e15"] * 200_000) + b"]}").decode()
    provider = provider_over(store)
    provider.register(sample({"deep": deep}), issuer=ALICE, at=AT)
    provider.register({"type": "sample", "payload": payload}, issuer=ALICE, at=AT)
    reread = provider_over(store).snapshot(AT)
    assert reread.values["deep"] == deep
    assert len(reread.values["grown"]) == 200_000


def test_many_values_cost_the_steady_state_nothing(store: MemoryStore) -> None:
    provider = provider_over(store)
    for part in range(10):
        values = {f"rvps:///example.org/kernel/{part}/{n}:1.0": [f"{n:064x}"] for n in range(1000)}
        provider.register(sample(values), issuer=ALICE, at=AT)
    first = provider.snapshot(AT)
    assert len(first.values) == 10_000
    store.calls.clear()
    assert all(provider.snapshot(AT) is first for _ in range(100))
    assert store.calls == []
