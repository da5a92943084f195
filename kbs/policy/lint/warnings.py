"""Lint rules about policies that work, but perhaps not as meant. They are shown and recorded, and refuse nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kbs.policy.engine import PolicyKind
from kbs.policy.lint.claims import Catalogue
from kbs.policy.lint.errors import RESULTS
from kbs.policy.lint.model import LintFinding, found
from kbs.policy.lint.pods import POD_MEMBERS, identity_alone, unknown_member
from kbs.policy.lint.tree import (
    Definition,
    Module,
    Node,
    calls,
    is_literal,
    is_scalar,
    members,
    path,
    references,
    scalar,
    walk,
)

_AFFIRMING: Final = range(2, 32)
_ASKED: Final = {
    PolicyKind.EVIDENCE: frozenset({"trust_claims", "extensions", "findings"}),
    PolicyKind.RESOURCE: frozenset({"allow", "findings"}),
}
_OWN_DATA: Final = {
    PolicyKind.EVIDENCE: frozenset({"kbs", "policy"}),
    PolicyKind.RESOURCE: frozenset({"kbs", "policy", "plugin", "resource-path", "query", "identity"}),
}
_BY_REFERENCE: Final = frozenset({"in", "equals", "at least", "at most", "all in", "contains"})
_PASSIVE: Final = frozenset({"checks", "findings"})  # libraries that look at nothing but their arguments
_NO_VALUES_KNOWN: Final = frozenset({"nvidia"})
_BINDS: Final = frozenset({"assign", "eq"})
_COMPARISONS: Final = {"equal": True, "neq": False}


def warnings(kind: PolicyKind, module: Module, claims: Catalogue) -> Iterator[LintFinding]:
    """What an author should look at again. `claims`: what verifiers emit; asked of evidence policies."""
    used = module.reachable(_ASKED[kind])
    yield from _negated(module)
    yield from _always(kind, module)
    if kind is PolicyKind.EVIDENCE:
        yield from _no_reference(module, used)
        yield from _unknown_claims(module, claims)
    yield from _unknown_data(kind, module)
    if kind is PolicyKind.RESOURCE:
        yield from identity_alone(module, _PASSIVE)
    if RESULTS[kind] in module.definitions:
        yield from _unreachable(module, used)


# --- negation over what may be absent ---------------------------------------------------------------------------------


def _negated(module: Module) -> Iterator[LintFinding]:
    for definition in module.all():
        if definition.branch == 0:
            yield from _negated_in(module, definition.node)


def _negated_in(module: Module, rule: Node) -> Iterator[LintFinding]:
    derived = _derived(rule)
    for expression in walk(rule):
        if not expression.get("negated"):
            continue
        for reference in references(expression.get("terms")):
            names = path(reference.get("value"))
            claim = _member_of_input(names, derived)
            if claim is not None:
                text = f"`not` holds as well when {claim} is absent; ask for the good value instead"
                yield found("negated-claim", expression, text)
                break
        else:
            yield from _negated_rule(module, expression)


def _negated_rule(module: Module, expression: Node) -> Iterator[LintFinding]:
    term = expression.get("terms")
    name = term.get("value") if isinstance(term, dict) and term.get("type") == "var" else None
    definitions = module.definitions.get(name, ()) if isinstance(name, str) else ()
    if not definitions or any(each.default for each in definitions):
        return
    for each in definitions:
        for reference in references(each.node):
            names = path(reference.get("value"))
            if names[:1] == ["input"] and len(names) > 1:
                text = f"`not {name}` holds as well when {_shown(names)} is absent; ask for the good value instead"
                yield found("negated-claim", expression, text)
                return


def _derived(rule: Node) -> set[str]:
    """Variables of a rule that hold a part of the input."""
    derived: set[str] = set()
    for name, _, arguments in calls(rule):
        if name in _BINDS and len(arguments) == 2:
            for one, other in (arguments, arguments[::-1]):
                if one.get("type") == "var" and _is_input(other):
                    derived.add(one["value"])
        elif name.startswith("internal.member_") and _is_input(arguments[-1]):
            derived |= {each["value"] for each in arguments[:-1] if each.get("type") == "var"}
    for each in walk(rule):
        if "domain" in each and _is_input(each["domain"]):
            derived |= {each[part]["value"] for part in ("key", "value") if (each.get(part) or {}).get("type") == "var"}
    return derived


def _is_input(term: Any) -> bool:
    return isinstance(term, dict) and term.get("type") == "ref" and path(term.get("value"))[:1] == ["input"]


def _member_of_input(names: list[str | None], derived: set[str]) -> str | None:
    if len(names) < 2 or (names[0] != "input" and names[0] not in derived):
        return None
    return _shown(names)


def _shown(names: list[str | None]) -> str:
    return "`" + ".".join(name or "…" for name in names)[:100] + "`"


# --- policies that say yes to everybody -------------------------------------------------------------------------------


def _always(kind: PolicyKind, module: Module) -> Iterator[LintFinding]:
    definitions = module.definitions.get(RESULTS[kind], ())
    good = _allows if kind is PolicyKind.RESOURCE else _affirms
    for each in definitions:
        if each.branch == 0 and not each.conditional and not each.partial and good(module, each.value):
            yield found("always-allows", each.node, f"`{each.name}` is good here without any condition")
            return
    rules = [each.node for name in module.reachable(frozenset({RESULTS[kind]})) for each in module.definitions[name]]
    looks = any(path(each.get("value"))[:1] == ["input"] for rule in rules for each in references(rule))
    looks = looks or bool(_libraries(module) - _PASSIVE)
    if definitions and not looks and any(not _is_no(kind, each) for each in definitions):
        subject = "token" if kind is PolicyKind.RESOURCE else "evidence"
        text = f"`{definitions[0].name}` does not depend on `input`: every {subject} is treated alike"
        yield found("always-allows", definitions[0].node, text)


def _allows(module: Module, value: Any) -> bool:
    del module
    return value is None or is_literal(value, True)


def _affirms(module: Module, value: Any) -> bool:
    """A constant of the affirming tier, or the default of a rule that stands for one claim."""
    for _, each in members(value):
        if scalar(each) in _AFFIRMING:
            return True
        if each.get("type") == "var":
            for definition in module.definitions.get(each["value"], ()):
                free = definition.branch == 0 and not definition.conditional and not definition.arguments
                if free and scalar(definition.value) in _AFFIRMING:
                    return True
    return False


def _is_no(kind: PolicyKind, each: Definition) -> bool:
    """This definition gives nothing good, whatever its conditions."""
    if kind is PolicyKind.RESOURCE:
        return is_literal(each.value, False)
    pairs = members(each.value)
    return bool(pairs) and all(is_scalar(value) and scalar(value) not in _AFFIRMING for _, value in pairs)


# --- reference values, claims, data -----------------------------------------------------------------------------------


def _no_reference(module: Module, used: set[str]) -> Iterator[LintFinding]:
    results = module.definitions.get("trust_claims", ())
    rules = [each.node for name in used for each in module.definitions[name]]
    if not results or _consults(module, rules) or all(_is_no(PolicyKind.EVIDENCE, each) for each in results):
        return
    paths = [path(each.get("value")) for rule in rules for each in references(rule)]
    tees = {names[1] for names in paths if names[:1] == ["input"] and len(names) > 1}
    if tees and tees <= _NO_VALUES_KNOWN:
        return
    text = "no reference value is consulted: nothing says which software, firmware or settings are the right ones"
    yield found("no-reference-value", results[0].node, text)


def _consults(module: Module, rules: list[Node]) -> bool:
    for rule in rules:
        for name, _, _ in calls(rule):
            if name.removeprefix("data.policy.") in {"query_reference_value", "query_reference_sets"}:
                return True
        if "checks" in _libraries(module) and any(map(_looks_up, walk(rule))):
            return True
    return bool(_libraries(module) - _PASSIVE)


def _looks_up(node: Node) -> bool:
    """A row of a table of checks that compares with a reference value."""
    row = node.get("value") if node.get("type") == "array" else None
    return isinstance(row, list) and len(row) >= 3 and scalar(row[1]) in _BY_REFERENCE


def _libraries(module: Module) -> set[str]:
    paths = [list(each) for each in module.aliases.values()]
    paths += [path(each.get("value")) for each in references(module.node.get("rules"))]
    return {names[2] for names in paths if names[:2] == ["data", "kbs"] and len(names) > 2 and names[2] is not None}


def _unknown_claims(module: Module, claims: Catalogue) -> Iterator[LintFinding]:
    for each in references(module.node.get("rules")):
        names = path(each.get("value"))
        if names[:1] == ["input"]:
            yield from _unknown(each, names[1:], claims)
    for name, where, arguments in calls(module.node.get("rules")):
        if name == "object.get" and len(arguments) == 3 and _is_input_like(arguments[0]):
            inside = path(arguments[0].get("value"))[1:] if arguments[0].get("type") == "ref" else []
            yield from _unknown(where, [*inside, *_key_path(arguments[1])], claims)


def _is_input_like(term: Any) -> bool:
    return _is_input(term) or (isinstance(term, dict) and term.get("type") == "var" and term.get("value") == "input")


def _key_path(term: Any) -> list[str | None]:
    parts = term.get("value") if term.get("type") == "array" else [term]
    return [part.get("value") if part.get("type") == "string" else None for part in parts]


def _unknown(where: Node, names: list[str | None], claims: Catalogue) -> Iterator[LintFinding]:
    unknown = claims.unknown(names)
    if unknown is not None:
        hint = f"; there is `input.{unknown.nearest}`" if unknown.nearest else ""
        yield found("unknown-claim", where, f"no verifier emits `input.{unknown.path[:100]}`{hint}")


def _unknown_data(kind: PolicyKind, module: Module) -> Iterator[LintFinding]:
    for each in references(module.node.get("rules")):
        names = path(each.get("value"))
        if names[:1] != ["data"] or len(names) < 2 or names[1] is None:
            continue
        if names[1] in _OWN_DATA[kind]:
            if (member := unknown_member(names)) is not None:
                there = "data.identity.kubernetes: " + ", ".join(sorted(POD_MEMBERS))
                yield found("unknown-data", each, f"`{member[:100]}` never has a value; there is {there}")
            continue
        hint = ""
        if names[1] == "reference":
            hint = '; reference values come from query_reference_value("name")'
        yield found("unknown-data", each, f"`data.{names[1][:100]}` has no value for a policy of kind {kind}{hint}")


# --- what never happens -----------------------------------------------------------------------------------------------


def _unreachable(module: Module, used: set[str]) -> Iterator[LintFinding]:
    for name, definitions in module.definitions.items():
        if name not in used:
            yield found("unreachable-rule", definitions[0].node, f"nothing that the broker asks for uses `{name}`")
        for earlier, each in zip((None, *definitions), definitions, strict=False):
            after_all = each.branch and earlier is not None and not earlier.conditional and not earlier.arguments
            if after_all:
                yield found(
                    "unreachable-rule", each.node, f"this `else` of `{name}` comes after one without conditions"
                )
            for expression in each.body:
                if _never(expression):
                    yield found("unreachable-rule", expression, f"`{name}` cannot hold here: this is never true")


def _never(expression: Node) -> bool:
    terms = expression.get("terms")
    if isinstance(terms, dict):
        return is_literal(terms, bool(expression.get("negated")))
    if not isinstance(terms, list) or len(terms) != 3 or not all(is_scalar(each) for each in terms[1:]):
        return False
    name = ".".join(part or "?" for part in path(terms[0].get("value")))
    if name not in _COMPARISONS:
        return False
    same = (terms[1]["type"], terms[1]["value"]) == (terms[2]["type"], terms[2]["value"])
    return same is (not _COMPARISONS[name]) if not expression.get("negated") else same is _COMPARISONS[name]
