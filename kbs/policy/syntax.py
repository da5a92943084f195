"""What may stand in a policy of an administrator, checked on the syntax tree that `opa parse` gives.

`opa build` accepts texts that would take the verdict over: another package, our wrapper's package, a second
`query_reference_value` (policy-engine.md 7). They are refused here, with the place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kbs.errors import PolicyUnacceptable
from kbs.policy.engine import PolicyKind
from kbs.policy.library import IMPORTABLE

_RESERVED: Final = {PolicyKind.EVIDENCE: frozenset({"query_reference_value"}), PolicyKind.RESOURCE: frozenset[str]()}
_REQUIRED: Final = {PolicyKind.EVIDENCE: "trust_claims", PolicyKind.RESOURCE: "allow"}
_MAX_DEPTH: Final = 500


def check_module(kind: PolicyKind, module: Any) -> None:
    """Check one parsed module (`opa parse --format json --json-include locations`).

    Raises:
        PolicyUnacceptable: not exactly `package policy`, a reserved rule, a reference into the broker's own packages,
            an annotation with schemas, or the rule missing that a policy of this kind is asked for.
    """
    if not isinstance(module, dict) or not isinstance(module.get("package"), dict):
        raise PolicyUnacceptable("the policy holds no module")
    package = module["package"]
    if _path(package.get("path")) != ["data", "policy"]:
        raise PolicyUnacceptable(f"{_place(package)}the package must be exactly `policy`")
    for annotation in module.get("annotations") or []:
        if "schemas" in annotation:  # `opa check` would follow their `$ref` into files of this machine
            raise PolicyUnacceptable(f"{_place(annotation)}annotations must not name schemas")
    defined: set[str] = set()
    for rule in module.get("rules") or []:
        name = _rule_name(rule)
        if name in _RESERVED[kind]:
            raise PolicyUnacceptable(f"{_place(rule)}`{name}` is given by the broker and cannot be defined")
        if name == _REQUIRED[kind] and "args" in rule["head"]:
            raise PolicyUnacceptable(f"{_place(rule)}`{name}` must be a rule, not a function")
        defined.add(name)
    if _REQUIRED[kind] not in defined:
        raise PolicyUnacceptable(f"a policy of kind {kind} must define the rule `{_REQUIRED[kind]}`")
    for reference in _references(module.get("rules"), 0):
        _check_reference(reference)
    for imported in module.get("imports") or []:
        path = imported.get("path", {})
        if _path(path.get("value")) == ["data"]:
            raise PolicyUnacceptable(f"{_place(imported)}`data` cannot be imported as a whole")
        _check_reference(path)


def _rule_name(rule: Any) -> str:
    head = rule.get("head", {})
    ref = head.get("ref") or [{"value": head.get("name", "")}]
    return str(ref[0].get("value", ""))


def _references(node: Any, depth: int) -> Iterator[Any]:
    """Every reference that begins with `data`, wherever it stands."""
    if depth > _MAX_DEPTH:
        raise PolicyUnacceptable("the policy is nested too deeply")
    if isinstance(node, list):
        for item in node:
            yield from _references(item, depth + 1)
    elif isinstance(node, dict):
        if node.get("type") == "ref" and _path(node.get("value"))[:1] == ["data"]:
            yield node
        for name, item in node.items():
            if name != "location":
                yield from _references(item, depth + 1)


def _check_reference(reference: Any) -> None:
    path = _path(reference.get("value"))
    if path[:1] != ["data"]:
        return
    if len(path) > 1 and path[1] is None:
        raise PolicyUnacceptable(f"{_place(reference)}`data` must be followed by a fixed name")
    if path[1:2] == ["kbs"] and (len(path) < 3 or path[2] not in IMPORTABLE):
        raise PolicyUnacceptable(f"{_place(reference)}`data.kbs` belongs to the broker, but for its libraries")


def _path(terms: Any) -> list[str | None]:
    """The parts of a reference; None for one that is only known at run time."""
    if not isinstance(terms, list) or not terms or not isinstance(terms[0], dict):
        return []
    head = terms[0].get("value") if terms[0].get("type") == "var" else None
    rest = [term.get("value") if term.get("type") == "string" else None for term in terms[1:]]
    return [head if isinstance(head, str) else None, *rest]


def _place(node: Any) -> str:
    return place(node.get("location") or (node.get("head") or {}).get("location"))


def place(location: Any) -> str:
    """`line 3, column 7: ` of a location as OPA writes it, empty without one."""
    if not isinstance(location, dict) or not location.get("row"):
        return ""
    return f"line {location['row']}, column {location.get('col', 1)}: "
