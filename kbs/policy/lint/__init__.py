"""Lint: named rules of fixed severity over the syntax tree of a policy. docs/policies/lint.md shows each with examples.

Errors keep a policy from becoming active; warnings are shown to whoever sets it and recorded with the change.
"""

from __future__ import annotations

from typing import Any

from kbs.policy.engine import PolicyKind
from kbs.policy.lint.claims import catalogue
from kbs.policy.lint.errors import errors
from kbs.policy.lint.model import RULES, LintFinding, Severity
from kbs.policy.lint.tree import Module
from kbs.policy.lint.warnings import warnings

__all__ = ["RULES", "LintFinding", "Severity", "lint_module"]


def lint_module(kind: PolicyKind, tree: Any) -> tuple[LintFinding, ...]:
    """Errors first, each part in the order of the text; one finding per rule and place.

    Args:
        tree: what `opa parse --format json --json-include locations` printed, decoded.

    Raises:
        PolicyUnacceptable: it is no module, or nested too deeply.
    """
    module = Module.of(tree)
    wrong = list(dict.fromkeys(errors(kind, module)))
    doubtful = sorted(dict.fromkeys(warnings(kind, module, catalogue())), key=lambda each: (each.line, each.column))
    return (*wrong, *doubtful)
