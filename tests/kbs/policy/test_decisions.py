"""Inputs of decisions: kept in the background, bounded, never in the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kbs.errors import StorageUnavailable
from kbs.policy import decisions
from kbs.policy.decisions import DecisionInput, DecisionInputs, extension_digests
from kbs.policy.engine import PolicyKind
from kbs.storage.recent import Bounds, MemoryRecentStore
from tests.kbs.policy.support import NOW

BOUNDS = Bounds(records=5, octets=1 << 20, seconds=3600)


def made(number: int, claims: bytes = b'{"a":[1,2]}') -> DecisionInput:
    return DecisionInput(f"{number:032x}", PolicyKind.RESOURCE, "resource-policy", "d", claims, {"allow": True})


def inputs(bounds: Bounds = BOUNDS) -> DecisionInputs:
    return DecisionInputs(MemoryRecentStore(bounds), bounds, lambda: NOW)


def test_the_newest_come_back_as_they_were() -> None:
    kept = inputs()
    for number in range(8):
        kept.keep(made(number))
    found = kept.last(3)
    assert [int(each.decision, 16) for each in found] == [7, 6, 5]
    assert (bytes(found[0].claims), found[0].outcome, found[0].time) == (
        b'{"a":[1,2]}',
        {"allow": True},
        NOW.isoformat(),
    )
    assert len(kept.last(100)) == 5
    kept.close()


def test_extensions_are_kept_as_digests() -> None:
    assert extension_digests({}) == {}
    one = extension_digests({"b": {"x": [10**30, "\u2028"], "a": None}, "a": 1})
    assert one == extension_digests({"a": 1, "b": {"a": None, "x": [10**30, "\u2028"]}})
    assert {len(digest) for digest in one["extensions"].values()} == {16}
    assert one["extensions"]["a"] != extension_digests({"a": "1"})["extensions"]["a"]


def test_all_inputs_of_one_decision() -> None:
    kept = inputs()
    for number, part in ((1, "cpu0"), (2, "cpu0"), (2, "gpu0"), (3, "cpu0")):
        each = made(number)
        each.part = part
        kept.keep(each)
    assert [each.part for each in kept.of(f"{2:032x}")] == ["cpu0", "gpu0"]
    assert kept.of(f"{4:032x}") == kept.of("") == kept.of('"') == []
    kept.close()


def test_what_is_too_large_or_not_wanted_is_dropped() -> None:
    kept = inputs()
    kept.keep(made(1, b'"' + b"x" * (1 << 20) + b'"'))
    assert (kept.last(9), kept.dropped) == ([], 1)
    none = inputs(Bounds(0, 1 << 20, 3600))
    none.keep(made(1))
    assert none.last(9) == []


def test_what_waits_is_bounded_in_octets() -> None:
    kept = inputs(Bounds(1000, 100_000, 3600))
    for number in range(100):
        kept.keep(made(number, b'"' + b"x" * 10_000 + b'"'))
    assert 1 <= len(kept._waiting) <= 5
    kept.close()


def test_a_thread_writes_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_SOON", 0.0)
    written = threading.Event()

    class Told(MemoryRecentStore):
        def append(self, batch: bytes, records: int, at: float) -> None:
            super().append(batch, records, at)
            written.set()

    kept = DecisionInputs(Told(BOUNDS), BOUNDS, lambda: NOW)
    kept.keep(made(1))
    assert written.wait(10)
    written.clear()
    kept.keep(made(2))
    assert written.wait(10)
    assert len(kept.last(9)) == 2
    kept.close()


def test_a_full_disk_costs_inputs_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryRecentStore):
        def append(self, batch: bytes, records: int, at: float) -> None:
            raise StorageUnavailable("full")

    kept = DecisionInputs(Full(BOUNDS), BOUNDS, lambda: NOW)
    kept.keep(made(1))
    kept.flush()
    assert kept.dropped == 1
    assert "not kept" in caplog.text
    kept.close()


def test_lines_of_another_version_are_left_out() -> None:
    class Strange(MemoryRecentStore):
        def newest_first(self, not_before: float) -> Iterator[bytes]:
            yield b'{"decision":1}\nnonsense'
            yield from super().newest_first(not_before)

    kept = DecisionInputs(Strange(BOUNDS), BOUNDS, lambda: NOW)
    kept.keep(made(1))
    assert len(kept.last(9)) == 1
    kept.close()
