"""The one cookie we read."""

from __future__ import annotations

from kbs.handshake.cookie import COOKIE_NAME

_MARK = COOKIE_NAME + "="


def session_cookie(header: str | None) -> str | None:
    """The first `kbs-session-id` in a `Cookie` header; None when there is none."""
    if header is None:
        return None
    for part in header.split(";"):
        part = part.strip(" \t")
        if part.startswith(_MARK):
            return part[len(_MARK) :]
    return None
