"""Buckets for handshakes."""

from __future__ import annotations

import pytest

from kbs.errors import RateLimited
from kbs.web.rates import HandshakeRates


class Ticks:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: HandshakeRates, source: str | None, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            rates.admit(source)
        except RateLimited:
            continue
        count += 1
    return count


def test_a_source_has_two_seconds_of_its_rate_at_once_and_then_its_rate() -> None:
    ticks = Ticks()
    rates = HandshakeRates(per_source=8, total=0, ticks=ticks)
    assert admitted(rates, "192.0.2.1", 100) == 17
    ticks.now += 1
    assert admitted(rates, "192.0.2.1", 100) == 8
    ticks.now += 3600
    assert admitted(rates, "192.0.2.1", 100) == 17


def test_sources_do_not_count_for_each_other() -> None:
    rates = HandshakeRates(per_source=8, total=0, ticks=Ticks())
    assert admitted(rates, "192.0.2.1", 100) == 17
    assert admitted(rates, "192.0.2.2", 100) == 17


@pytest.mark.parametrize("source", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", None])
def test_loopback_is_exempt(source: str | None) -> None:
    rates = HandshakeRates(per_source=1, total=0, ticks=Ticks())
    assert admitted(rates, source, 100) == 100


@pytest.mark.parametrize("source", ["128.0.0.1", "::12", "10.127.0.1"])
def test_what_only_looks_like_loopback_is_not(source: str) -> None:
    rates = HandshakeRates(per_source=1, total=0, ticks=Ticks())
    assert admitted(rates, source, 100) == 3


def test_the_total_counts_everybody() -> None:
    ticks = Ticks()
    rates = HandshakeRates(per_source=0, total=8, ticks=ticks)
    assert sum(admitted(rates, f"192.0.2.{at}", 1) for at in range(100)) == 17
    ticks.now += 1
    assert admitted(rates, "127.0.0.1", 100) == 8


def test_none_is_no_limit() -> None:
    assert admitted(HandshakeRates(per_source=0, total=0, ticks=Ticks()), "192.0.2.1", 10_000) == 10_000


def test_memory_is_bounded_and_comes_back() -> None:
    ticks = Ticks()
    rates = HandshakeRates(per_source=1, total=0, ticks=ticks)
    for at in range(30_000):
        rates.admit(f"2001:db8::{at:x}")
    assert len(rates._paid) == 20_000
    ticks.now += 10
    assert admitted(rates, "192.0.2.1", 100) == 3
    assert len(rates._paid) == 1
