"""The time claims of a JWT, for attestation and admin tokens alike (RFC 7519 section 4.1; threat-model P-JOSE-3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from kbs.errors import TokenRejected

SKEW: Final = 60.0  # seconds that clocks of issuer and acceptor may differ
_END_OF_TIME: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second a datetime can hold


class Window(NamedTuple):
    """When a token may be used: seconds since the epoch, both ends included, skew already added.

    expires: `exp` itself, without skew.
    """

    starts: float
    ends: float
    expires: float

    def is_open(self, now: float) -> bool:
        """Whether `now` lies in it."""
        return self.starts <= now <= self.ends


def read_window(claims: Mapping[str, Any], now: float, max_life: timedelta, *, needs_iat: bool = True) -> Window:
    """Read `exp`, `iat` and `nbf`.

    Args:
        claims: of a token whose signature was verified.
        now: seconds since the epoch.
        max_life: longest time from `iat` to `exp`; where a token may lack `iat` and does, from now to `exp`.
        needs_iat: whether a token without `iat` is refused. `exp` is always required.

    Raises:
        TokenRejected: a claim missing, not a number or out of range, or a life that is over, has not begun, or is
            longer than allowed.
    """
    expires = _seconds(claims, "exp")
    issued = _seconds(claims, "iat") if needs_iat or "iat" in claims else None
    not_before = _seconds(claims, "nbf") if "nbf" in claims else 0.0
    window = Window(max(issued or 0.0, not_before) - SKEW, expires + SKEW, expires)
    if now > window.ends:
        raise TokenRejected("token has expired")
    if now < window.starts:
        raise TokenRejected("token is not valid yet")
    if issued is not None and expires <= issued:
        raise TokenRejected("token expires before it was issued")
    if expires - (now + SKEW if issued is None else issued) > max_life.total_seconds():
        raise TokenRejected("token lives longer than is accepted")
    return window


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if type(value) is int and 0 <= value <= _END_OF_TIME:  # a bool is an int to isinstance
        return float(value)
    if type(value) is float and math.isfinite(value) and 0 <= value <= _END_OF_TIME:
        return value
    raise TokenRejected(f"token claim `{name}` is missing or not a time")
