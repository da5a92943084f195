"""The time claims, to the second."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kbs.errors import TokenRejected
from kbs.tokens.times import Window, read_window

NOW = 1_781_481_600.0
HOUR = timedelta(hours=1)
GOOD: dict[str, Any] = {"iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 10}


def test_window_has_skew_on_both_sides() -> None:
    window = read_window({"iat": NOW, "nbf": NOW + 5, "exp": NOW + 10}, NOW, HOUR)
    assert window == Window(NOW + 5 - 60, NOW + 10 + 60, NOW + 10)
    assert [window.is_open(moment) for moment in (NOW - 55.1, NOW - 55, NOW + 70, NOW + 70.1)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 60, "iat": NOW - 70, "nbf": NOW - 70},
        {"iat": NOW + 60, "exp": NOW + 61},
        {"nbf": NOW + 60},
        {"iat": NOW + 10 - 3600},
        {"iat": int(NOW)},
        {"exp": NOW + 0.5},
    ],
)
def test_last_accepted(changes: dict[str, Any]) -> None:
    assert read_window({**GOOD, **changes}, NOW, HOUR).is_open(NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 60.5, "iat": NOW - 70, "nbf": NOW - 70},
        {"iat": NOW + 60.5, "exp": NOW + 62},
        {"nbf": NOW + 60.5},
        {"iat": NOW + 9 - 3600},
        {"iat": NOW + 10},
        {"iat": NOW + 11},
    ],
)
def test_first_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TokenRejected):
        read_window({**GOOD, **changes}, NOW, HOUR)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value", [None, "1", "", True, False, [], {}, -1, -0.5, 1e308, 10**63, 253_402_300_800, float("inf"), float("nan")]
)
def test_other_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(TokenRejected):
        read_window({**GOOD, name: value}, NOW, timedelta(days=10**6))


@pytest.mark.parametrize("name", ["exp", "iat"])
def test_missing_claims_are_refused(name: str) -> None:
    claims = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(TokenRejected):
        read_window(claims, NOW, HOUR)


def test_without_iat_the_time_left_is_bounded() -> None:
    assert read_window({"exp": NOW + 3660}, NOW, HOUR, needs_iat=False).expires == NOW + 3660
    for claims in ({"exp": NOW + 3661}, {"exp": NOW + 10, "iat": None}, {"exp": NOW + 10, "iat": NOW + 61}):
        with pytest.raises(TokenRejected):
            read_window(claims, NOW, HOUR, needs_iat=False)
