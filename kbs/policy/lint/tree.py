"""Reading the syntax tree that `opa parse --format json --json-include locations` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.errors import PolicyUnacceptable

MAX_DEPTH: Final = 500
_SCALARS: Final = frozenset({"boolean", "number", "string", "null"})
COMPREHENSIONS: Final = frozenset({"arraycomprehension", "setcomprehension", "objectcomprehension"})
"""They always have a value, if an empty one."""
Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """One definition of a rule, or one `else` of it.

    branch: 0 for the definition itself, n for its nth `else`. rest: what follows the name in the head, as in
    `trust_claims["hardware"] := 2`. key: of `name contains key`.
    """

    name: str
    node: Node
    branch: int
    default: bool
    arguments: bool
    rest: tuple[Node, ...]
    key: Node | None
    value: Node | None
    body: tuple[Node, ...]

    @property
    def partial(self) -> bool:
        """It gives one member of an object or set."""
        return bool(self.rest) or self.key is not None

    @property
    def conditional(self) -> bool:
        """It has a body that may not hold."""
        return not self.default and any(
            expression.get("negated") or not is_literal(expression.get("terms"), True) for expression in self.body
        )


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed policy. `aliases`: local name → path of what was imported under it."""

    node: Node
    definitions: Mapping[str, tuple[Definition, ...]]
    aliases: Mapping[str, tuple[str | None, ...]]

    @classmethod
    def of(cls, node: Any) -> Module:
        """Read what `opa parse` printed.

        Raises:
            PolicyUnacceptable: it is no module.
        """
        if not isinstance(node, dict) or not isinstance(node.get("package"), dict):
            raise PolicyUnacceptable("the policy holds no module")
        definitions: dict[str, list[Definition]] = {}
        for rule in node.get("rules") or []:
            for each in _definitions(rule):
                definitions.setdefault(each.name, []).append(each)
        return cls(node, {name: tuple(every) for name, every in definitions.items()}, _aliases(node))

    def all(self) -> Iterator[Definition]:
        """Every definition, in the order of names."""
        for definitions in self.definitions.values():
            yield from definitions

    def reachable(self, roots: frozenset[str]) -> set[str]:
        """Names of the rules that the value of these depends on, themselves among them."""
        seen: set[str] = set()
        waiting = [name for name in roots if name in self.definitions]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for each in self.definitions[name]:
                waiting += [used for used in names_used(each.node) if used in self.definitions]
        return seen


def _definitions(rule: Node) -> Iterator[Definition]:
    head = rule.get("head") or {}
    reference = head.get("ref") or [{"value": head.get("name", "")}]
    name = str(reference[0].get("value", ""))
    arguments = "args" in head
    branch = 0
    node: Node | None = rule
    while node is not None:
        own = node.get("head") or {}
        yield Definition(
            name=name,
            node=node,
            branch=branch,
            default=bool(rule.get("default")),
            arguments=arguments,
            rest=tuple(reference[1:]),
            key=own.get("key"),
            value=own.get("value"),
            body=tuple(node.get("body") or ()),
        )
        branch += 1
        if branch > MAX_DEPTH:
            raise PolicyUnacceptable("the policy is nested too deeply")
        node = node.get("else")


def _aliases(node: Node) -> dict[str, tuple[str | None, ...]]:
    aliases: dict[str, tuple[str | None, ...]] = {}
    for each in node.get("imports") or []:
        names = path(each.get("path", {}).get("value"))
        last = each.get("alias") or (names[-1] if names else None)
        if isinstance(last, str):
            aliases[last] = tuple(names)
    return aliases


def walk(node: Any, depth: int = 0, *, skip: frozenset[str] = frozenset()) -> Iterator[Node]:
    """Every object of the tree, the outer before the inner. skip: types of nodes that are not entered.

    Raises:
        PolicyUnacceptable: deeper than any sensible text.
    """
    if depth > MAX_DEPTH:
        raise PolicyUnacceptable("the policy is nested too deeply")
    if isinstance(node, list | tuple):
        for item in node:
            yield from walk(item, depth + 1, skip=skip)
    elif isinstance(node, dict) and node.get("type") not in skip:
        yield node
        for name, item in node.items():
            if name != "location":
                yield from walk(item, depth + 1, skip=skip)


def references(node: Any) -> Iterator[Node]:
    """Every reference below a node."""
    for each in walk(node):
        if each.get("type") == "ref":
            yield each


def path(terms: Any) -> list[str | None]:
    """The parts of a reference; None for one that is only known at run time."""
    if not isinstance(terms, list) or not terms or not isinstance(terms[0], dict):
        return []
    head = terms[0].get("value") if terms[0].get("type") == "var" else None
    rest = [term.get("value") if term.get("type") == "string" else None for term in terms[1:]]
    return [head if isinstance(head, str) else None, *rest]


def names_used(node: Any) -> Iterator[str]:
    """Names that may be those of rules: variables and heads of references; `data.policy.x` too."""
    for each in walk(node):
        if each.get("type") == "var" and isinstance(each.get("value"), str):
            yield each["value"]
        elif each.get("type") == "ref":
            names = path(each.get("value"))
            if names[:2] == ["data", "policy"] and len(names) > 2 and names[2] is not None:
                yield names[2]


def calls(node: Any) -> Iterator[tuple[str, Node, tuple[Any, ...]]]:
    """Every call below a node: dotted name of the function, where, arguments."""
    for each in walk(node):
        terms = each.get("value") if each.get("type") == "call" else each.get("terms")
        if isinstance(terms, list) and terms and isinstance(terms[0], dict) and terms[0].get("type") == "ref":
            names = path(terms[0].get("value"))
            yield ".".join(name or "?" for name in names), terms[0], tuple(terms[1:])


def is_scalar(term: Any) -> bool:
    """A boolean, number, text or null that stands in the policy."""
    return isinstance(term, dict) and term.get("type") in _SCALARS


def is_literal(term: Any, value: bool) -> bool:
    """Exactly this boolean."""
    return isinstance(term, dict) and term.get("type") == "boolean" and term.get("value") is value


def members(term: Any) -> list[tuple[Node, Node]]:
    """Keys and values of an object literal, empty for anything else."""
    if not isinstance(term, dict) or term.get("type") != "object":
        return []
    pairs = term.get("value")
    if not isinstance(pairs, list):
        return []
    return [(pair[0], pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def scalar(term: Any) -> Any:
    """The value of a scalar; None for null and for what is none."""
    return term.get("value") if is_scalar(term) and term["type"] != "null" else None
