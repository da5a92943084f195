"""What lint says of a policy: one named rule, its fixed severity, the place, and the sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Severity(StrEnum):
    """An error keeps a policy from becoming active; a warning is shown and recorded."""

    ERROR = "error"
    WARNING = "warning"


RULES: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        "syntax": Severity.ERROR,
        "wrong-package": Severity.ERROR,
        "reserved-name": Severity.ERROR,
        "schema-annotation": Severity.ERROR,
        "missing-result": Severity.ERROR,
        "wrong-result-type": Severity.ERROR,
        "no-default": Severity.ERROR,
        "unsafe-builtin": Severity.ERROR,
        "does-not-compile": Severity.ERROR,
        "negated-claim": Severity.WARNING,
        "always-allows": Severity.WARNING,
        "no-reference-value": Severity.WARNING,
        "unknown-claim": Severity.WARNING,
        "unknown-data": Severity.WARNING,
        "identity-alone": Severity.WARNING,
        "unreachable-rule": Severity.WARNING,
        "strict": Severity.WARNING,
    }
)
"""Every rule that lint has, with its severity. docs/policies/lint.md describes each."""


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One thing that lint found. line, column: from 1, 0 where the whole text is meant."""

    rule: str
    line: int
    column: int
    text: str

    @property
    def severity(self) -> Severity:
        """That of the rule; it does not depend on the place."""
        return RULES[self.rule]

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{where}{self.text} [{self.rule}]"

    def document(self) -> dict[str, Any]:
        """Members for JSON."""
        return {"severity": self.severity.value, **asdict(self)}


def found(rule: str, node: Any, text: str) -> LintFinding:
    """A finding at a node of the syntax tree; None: at the whole text."""
    location = node.get("location") if isinstance(node, dict) else None
    if not isinstance(location, dict) and isinstance(node, dict) and isinstance(node.get("head"), dict):
        location = node["head"].get("location")
    if not isinstance(location, dict) or not location.get("row"):
        return LintFinding(rule, 0, 0, text)
    return LintFinding(rule, int(location["row"]), int(location.get("col", 1)), text)
