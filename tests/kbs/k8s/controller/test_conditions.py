"""Conditions: the time is that of the last change of status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kbs.k8s.controller.conditions import Finding, merged, shown
from kbs.k8s.model import Condition

T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_time_changes_with_the_status_only() -> None:
    first = merged((), (Finding("Ready", False, "A", "a"),), 1, T0)
    second = merged(first, (Finding("Ready", False, "B", "b"),), 2, T0 + timedelta(hours=1))
    third = merged(second, (Finding("Ready", True, "C"),), 2, T0 + timedelta(hours=2))
    assert [each[0].last_transition_time for each in (first, second, third)] == [
        "2026-11-21T12:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-21T14:00:00Z",
    ]
    assert second[0].reason == "B"
    assert second[0].observed_generation == 2


def test_others_stay_behind() -> None:
    old = Condition("Other", "True", "X", "", "2026-11-21T12:00:00Z", 1)
    found = merged((old,), (Finding("Ready", None, "Y"),), 3, T0)
    assert [(each.type, each.status) for each in found] == [("Ready", "Unknown"), ("Other", "True")]


def test_messages_steer_no_terminal() -> None:
    assert shown("a\x1b[31mb\r\x00\nc") == "a\ufffd[31mb\ufffd\ufffd\nc"
    assert len(shown("x" * 100_000)) == 2000
