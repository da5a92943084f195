"""Lint rules that keep a policy from becoming active.

`opa build` accepts texts that would take the verdict over or never give one: another package, our wrapper's package, a
second `query_reference_value`, no result, a result of another type (policy-engine.md 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kbs.policy.engine import PolicyKind
from kbs.policy.lint.model import LintFinding, found
from kbs.policy.lint.tree import (
    COMPREHENSIONS,
    Definition,
    Module,
    Node,
    calls,
    is_scalar,
    members,
    path,
    references,
    walk,
)
from kbs.policy.outcome import TRUST_CLAIM_NAMES
from kbs.policy.rego_sources import IMPORTABLE

RESULTS: Final = {PolicyKind.EVIDENCE: "trust_claims", PolicyKind.RESOURCE: "allow"}
"""The rule that a policy of each kind is asked for."""
_RESERVED: Final = {
    PolicyKind.EVIDENCE: frozenset({"query_reference_value", "query_reference_sets"}),
    PolicyKind.RESOURCE: frozenset[str](),
}
UNSAFE: Final = ("http.", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122", "providers.", "graphql.",
                  "rego.parse_module", "io.jwt.", "crypto.x509.", "crypto.parse_private_keys")  # fmt: skip
_COLLECTIONS: Final = frozenset({"array", "set", "arraycomprehension", "setcomprehension"})
_OBJECTS: Final = frozenset({"object", "objectcomprehension"})


def errors(kind: PolicyKind, module: Module) -> Iterator[LintFinding]:
    """What is wrong with a module that parses, in order of weight: the first is the one to tell."""
    yield from _package(module)
    yield from _schemas(module)
    yield from _reserved(kind, module)
    yield from _unsafe(module)
    yield from _result(kind, module)


def _package(module: Module) -> Iterator[LintFinding]:
    package = module.node["package"]
    if path(package.get("path")) != ["data", "policy"]:
        yield found("wrong-package", package, "the package must be exactly `policy`")


def _schemas(module: Module) -> Iterator[LintFinding]:
    for annotation in module.node.get("annotations") or []:
        if "schemas" in annotation:  # `opa check` would follow their `$ref` into files of this machine
            yield found("schema-annotation", annotation, "annotations must not name schemas")


def _reserved(kind: PolicyKind, module: Module) -> Iterator[LintFinding]:
    for each in module.all():
        if each.name in _RESERVED[kind] and not each.branch:
            yield found("reserved-name", each.node, f"`{each.name}` is given by the broker and cannot be defined")
    for replaced in _replaced(module.node.get("rules")):
        names = path(replaced.get("value")) if replaced.get("type") == "ref" else [replaced.get("value")]
        if {*(names[2:3] if names[:2] == ["data", "policy"] else names[:1])} & _RESERVED[kind]:
            yield found("reserved-name", replaced, f"`{names[-1]}` is given by the broker and cannot be replaced")
    for reference in references(module.node.get("rules")):
        yield from _reference(reference)
    for imported in module.node.get("imports") or []:
        if imported.get("alias") in _RESERVED[kind]:
            yield found("reserved-name", imported, f"`{imported['alias']}` is given by the broker: import as another")
        where = imported.get("path", {})
        if path(where.get("value")) == ["data"]:
            yield found("reserved-name", imported, "`data` cannot be imported as a whole")
        yield from _reference(where)


def _replaced(node: Any) -> Iterator[Node]:
    """What is named after `with`."""
    for each in walk(node):
        for given in each.get("with") or []:
            target = given.get("target") if isinstance(given, dict) else None
            if isinstance(target, dict):
                yield target


def _reference(reference: Any) -> Iterator[LintFinding]:
    names = path(reference.get("value"))
    if names[:1] != ["data"]:
        return
    if len(names) > 1 and names[1] is None:
        yield found("reserved-name", reference, "`data` must be followed by a fixed name")
    if names[1:2] == ["kbs"] and (len(names) < 3 or names[2] not in IMPORTABLE):
        yield found("reserved-name", reference, "`data.kbs` belongs to the broker, but for its libraries")


def _unsafe(module: Module) -> Iterator[LintFinding]:
    used = [(name, where) for name, where, _ in calls(module.node.get("rules"))]
    for each in walk(module.node.get("rules")):
        for changed in each.get("with") or []:
            for reference in references(changed):
                used.append((".".join(name or "?" for name in path(reference.get("value"))), reference))
    for name, where in dict.fromkeys((name, _hashable(where)) for name, where in used):
        if name.startswith(UNSAFE) or name == "trace":
            text = f"`{name}` reaches outside of an evaluation or differs from one to the next: policies have it not"
            yield LintFinding("unsafe-builtin", where[0], where[1], text)


def _hashable(node: Node) -> tuple[int, int]:
    at = found("unsafe-builtin", node, "")
    return at.line, at.column


def _result(kind: PolicyKind, module: Module) -> Iterator[LintFinding]:
    name = RESULTS[kind]
    definitions = module.definitions.get(name, ())
    if not definitions:
        yield found("missing-result", None, f"a policy of kind {kind} must define the rule `{name}`")
        return
    wrong = False
    for each in definitions:
        for finding in _wrong_type(kind, each):
            wrong = True
            yield finding
    if not wrong and not any(_always_has_value(module, each, frozenset()) for each in definitions):
        text = f"`{name}` has no value when none of its conditions holds: write `default {name} := …`"
        yield found("no-default", definitions[0].node, text)


def _wrong_type(kind: PolicyKind, each: Definition) -> Iterator[LintFinding]:
    rule = "wrong-result-type"
    if each.arguments:
        yield found(rule, each.node, f"`{each.name}` must be a rule, not a function")
        return
    if kind is PolicyKind.RESOURCE:
        if each.partial or (each.value or {}).get("type") in _COLLECTIONS | _OBJECTS:
            yield found(rule, each.node, "`allow` must be true or false, not a collection")
        elif is_scalar(each.value) and each.value is not None and each.value["type"] != "boolean":
            yield found(rule, each.node, "`allow` must be true or false")
        return
    if each.key is not None or len(each.rest) > 1:
        yield found(rule, each.node, "`trust_claims` must be an object of integers, not a set")
    elif each.rest:
        yield from _trust_claim(each.rest[0], each.value)
    elif is_scalar(each.value) or (each.value or {}).get("type") in _COLLECTIONS:
        yield found(rule, each.node, "`trust_claims` must be an object of integers")
    elif (each.value or {}).get("type") == "object":
        yield from _trust_claims(each)


def _trust_claims(each: Definition) -> Iterator[LintFinding]:
    pairs = members(each.value)
    if not pairs:
        yield found("wrong-result-type", each.node, "`trust_claims` is empty: at least one claim must be set")
    for name, value in pairs:
        yield from _trust_claim(name, value)


def _trust_claim(name: Any, value: Any) -> Iterator[LintFinding]:
    rule = "wrong-result-type"
    text = name.get("value") if name.get("type") == "string" else None
    if text is not None and text not in TRUST_CLAIM_NAMES:
        known = ", ".join(sorted(TRUST_CLAIM_NAMES))
        yield found(rule, name, f"`trust_claims` has the unknown claim {text[:64]!r}; there are {known}")
    elif is_scalar(name) and text is None:
        yield found(rule, name, "`trust_claims` has a claim whose name is no text")
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "number":
        number = str(value["value"])
        if not number.lstrip("-").isdigit():
            yield found(rule, value, f"the trust claim {text!r} is not an integer")
        elif len(number) > 4 or not -128 <= int(number) <= 127:
            yield found(rule, value, f"the trust claim {text!r} is outside -128..127")
    elif kind in {"boolean", "string", "null"} | _COLLECTIONS | _OBJECTS:
        yield found(rule, value, f"the trust claim {text!r} is not an integer")


def _always_has_value(module: Module, each: Definition, seen: frozenset[str]) -> bool:
    """A default, a member of an object (which is empty at worst), or no condition and nothing in it that may lack."""
    if each.default or each.partial:
        return True
    return not each.arguments and not each.conditional and _total(module, each.value, seen | {each.name})


def _total(module: Module, term: Any, seen: frozenset[str]) -> bool:
    """No part of this term is without value for some input. A call is taken to have one where its arguments do."""
    for node in walk(term, skip=COMPREHENSIONS):
        if node.get("type") == "ref":
            names = path(node.get("value"))
            if (names[:1] == ["input"] and len(names) > 1) or (names[:1] == ["data"] and names[1:2] != ["kbs"]):
                return False
        elif node.get("type") == "var" and node.get("value") in module.definitions:
            name = node["value"]
            if name in seen or not _some_value(module, name, seen):
                return False
    return True


def _some_value(module: Module, name: str, seen: frozenset[str]) -> bool:
    return any(each.arguments or _always_has_value(module, each, seen) for each in module.definitions[name])
