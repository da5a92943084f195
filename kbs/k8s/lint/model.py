"""What the lint of manifests is asked and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Object = Mapping[str, Any]
"""One manifest as decoded; nothing about its shape is known but that it has an `apiVersion` and a `kind`."""


class Severity(StrEnum):
    """An error is not to be installed; a warning is to be known."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: stable name of the rule.
        place: kind and name of the object, with the container or port where there is one.
        text: what is wrong. fix: what to do.
    """

    rule: str
    severity: Severity
    place: str
    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """All manifests of one installation together; rules look from one to another.

    dev: software TEEs, other insecure switches and a store that does not last are taken.
    """

    objects: tuple[Object, ...]
    dev: bool = False

    def of(self, *kinds: str) -> list[Object]:
        """Those of these kinds, in order."""
        return [each for each in self.objects if each.get("kind") in kinds]


Rule = Callable[[Rendered], Iterable[Finding]]


def error(rule: str, place: str, text: str, fix: str) -> Finding:
    """A finding that must not be installed."""
    return Finding(rule, Severity.ERROR, place, text, fix)


def warning(rule: str, place: str, text: str, fix: str) -> Finding:
    """A finding to be known."""
    return Finding(rule, Severity.WARNING, place, text, fix)
