"""The Lease: one leader at a time, whatever the clocks and the order of events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.k8s.api import LEASES, ApiForbidden, ApiUnreachable
from kbs.k8s.controller.election import DURATION, RENEW_DEADLINE, Election, Move, Seen, move
from tests.fakes.kubernetes_api import FakeApi


class Candidates:
    """Candidates that share an API server and the passing of time, but no clock."""

    def __init__(self, count: int = 2) -> None:
        self.api = FakeApi()
        self.now = 0.0
        self.all = [self._candidate(number) for number in range(count)]

    def _candidate(self, number: int) -> Election:
        wrong = datetime(2000 + 30 * number, 1, 1, tzinfo=UTC)  # clocks may be decades apart
        return Election(
            self.api, "kbs", "l", f"candidate-{number}", clock=lambda: wrong, seconds=lambda: self.now + 1000.0 * number
        )

    def leaders(self) -> list[int]:
        return [number for number, each in enumerate(self.all) if each.is_leader()]

    def spec(self) -> dict[str, object]:
        found = self.api.read(LEASES, "kbs", "l")
        assert found is not None
        spec: dict[str, object] = found["spec"]
        return spec


def test_the_first_one_leads_and_the_second_waits() -> None:
    both = Candidates()
    assert both.all[0].step()
    assert not both.all[1].step()
    both.now += DURATION - 1
    assert both.all[0].step()
    both.now += DURATION - 1
    assert not both.all[1].step(), "renewed: the time runs anew"
    assert both.spec()["holderIdentity"] == "candidate-0"


def test_the_second_takes_over_when_the_first_is_gone() -> None:
    both = Candidates()
    both.all[0].step()
    both.all[1].step()
    both.now += DURATION + 1
    assert both.leaders() == []
    assert both.all[1].step()
    assert both.leaders() == [1]
    assert both.spec()["leaseTransitions"] == 1
    assert not both.all[0].step()
    assert both.leaders() == [1]


def test_given_back_it_is_free_at_once() -> None:
    both = Candidates()
    both.all[0].step()
    both.all[1].step()
    both.all[0].release()
    assert both.leaders() == []
    assert both.all[1].step()
    both.all[0].release()
    assert both.spec()["holderIdentity"] == "candidate-1", "only the holder gives it back"


@pytest.mark.parametrize("error", [ApiUnreachable, ApiForbidden])
def test_a_leader_that_cannot_renew_stops_before_others_may_start(error: type[ApiUnreachable]) -> None:
    both = Candidates()
    both.all[0].step()
    both.api.fault = lambda *asked: error("no")
    both.now += RENEW_DEADLINE - 1
    with pytest.raises(error):
        both.all[0].step()
    assert both.leaders() == [0]
    both.now += 1
    assert both.leaders() == []


def test_a_lost_race_is_no_lead() -> None:
    both = Candidates()
    both.all[0].step()
    both.all[1].step()
    both.now += DURATION + 1
    taken = both.api.replace

    def slower(*arguments: object) -> object:
        both.api.replace = taken  # type: ignore[method-assign]
        assert both.all[0].step()
        return taken(*arguments)  # type: ignore[arg-type]

    both.api.replace = slower  # type: ignore[assignment]
    assert not both.all[1].step()
    assert both.leaders() == [0]


def test_moves() -> None:
    assert move(None, "me", 0.0) is Move.CREATE
    assert move(Seen("me", "1", 15, 0), "me", 99) is Move.RENEW
    assert move(Seen("", "1", 15, 0), "me", 0) is Move.TAKE
    assert move(Seen("other", "1", 15, 0), "me", 15) is Move.WAIT
    assert move(Seen("other", "1", 15, 0), "me", 15.1) is Move.TAKE


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), st.booleans()), max_size=40))
def test_never_two_leaders(steps: list[tuple[int, int, bool]]) -> None:
    three = Candidates(3)
    for number, seconds, away in steps:
        three.now += seconds
        three.api.fault = (lambda *asked: ApiUnreachable("away")) if away else None
        try:
            three.all[number].step()
        except ApiUnreachable:
            assert away
        assert len(three.leaders()) <= 1
