"""Conditions of a status: what is so, since when, and for which generation of the object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kbs.k8s.model import Condition

_MAX_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has a time. status: None for `Unknown`. reason: CamelCase. message: for people."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


def merged(
    before: Iterable[Condition], findings: Iterable[Finding], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """All conditions as they are now: those found anew, in their order, then others that stood before.

    The time of a condition changes with its `status` only (Kubernetes API conventions, typical status properties).
    """
    standing = {each.type: each for each in before}
    found = []
    for each in findings:
        old = standing.pop(each.type, None)
        status = "Unknown" if each.status is None else str(each.status)
        since = old.last_transition_time if old is not None and old.status == status else timestamp(now)
        found.append(Condition(each.type, status, each.reason, shown(each.message), since, generation))
    return (*found, *standing.values())


def shown(message: str) -> str:
    """A message, short and without characters that steer a terminal."""
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in message[:_MAX_MESSAGE])


def timestamp(moment: datetime) -> str:
    """As the API has it: RFC 3339 in UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
