"""What every refusal looks like."""

from __future__ import annotations

import re

from tests.fakes.broker import Answer

_DECISION = re.compile(r"[0-9a-f]{32}")
_INSTANCE = re.compile(r"urn:kbs:instance:[0-9a-f]{16}")


def expect(answer: Answer, status: int, name: str, reason: str | None = None, *, decided: bool = False) -> None:
    """Check status, wire name, reason, the order of members, and whether a decision was recorded."""
    assert (answer.status, answer.name) == (status, name), (answer.status, answer.body)
    document = answer.json
    members = list(document)
    assert members[:2] == ["type", "detail"]
    assert members == ["type", "detail", "title", "status", "instance", "reason", *(["decision"] if decided else [])]
    assert all(isinstance(document[member], str) for member in members if member != "status")
    assert document["status"] == status
    assert _INSTANCE.fullmatch(document["instance"])
    if reason is not None:
        assert document["reason"] == reason
    if decided:
        assert _DECISION.fullmatch(document["decision"])
    assert answer.header("content-type") == "application/problem+json"
    assert (answer.header("retry-after") is not None) == (status in (429, 503))
    assert (answer.header("allow") is not None) == (status == 405)
    assert answer.header("set-cookie") is None
