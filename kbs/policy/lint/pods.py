"""Lint rules about `data.identity`: what a guest's Pod says of itself, which is worth nothing without evidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kbs.policy.lint.model import LintFinding, found
from kbs.policy.lint.tree import Definition, Module, Node, is_literal, names_used, path, references

POD_MEMBERS: Final = frozenset(
    {"checked", "cluster", "namespace", "node", "pod", "pod_uid", "serviceaccount", "serviceaccount_uid"}
)
"""What `data.identity.kubernetes` may have."""
_IDENTITY: Final = ["data", "identity"]


def unknown_member(names: list[str | None]) -> str | None:
    """The part of a reference into `data.identity` that never has a value; None: it may have one."""
    if names[:2] != _IDENTITY:
        return None
    if len(names) > 2 and names[2] not in ("kubernetes", None):
        return f"data.identity.{names[2]}"
    if len(names) > 3 and names[3] is not None and names[3] not in POD_MEMBERS:
        return f"data.identity.kubernetes.{names[3]}"
    return None


def identity_alone(module: Module, passive: frozenset[str]) -> Iterator[LintFinding]:
    """Definitions of `allow` that look at the Pod and at nothing of the token.

    passive: libraries that look at nothing but their arguments.
    """
    for each in module.definitions.get("allow", ()):
        if each.default or is_literal(each.value, False):
            continue
        paths = _paths(module, _depends_on(module, each))
        if any(names[:2] == _IDENTITY for names in paths) and not _sees_evidence(paths, passive):
            text = (
                "`allow` holds here for a Pod without a look at the evidence: whoever runs the cluster can be any of "
                "its Pods; add what the token has to say, such as data.kbs.affirming"
            )
            yield found("identity-alone", each.node, text)


def _depends_on(module: Module, definition: Definition) -> list[Node]:
    """The definition, without those that follow by `else`, and every rule that it uses."""
    own = {name: value for name, value in definition.node.items() if name != "else"}
    used = module.reachable(frozenset(names_used(own)) - {"allow"})
    return [own, *(each.node for name in used for each in module.definitions[name])]


def _paths(module: Module, nodes: list[Node]) -> list[list[str | None]]:
    """What is referred to, by its own name or by one that it was imported under."""
    found = [path(reference.get("value")) for node in nodes for reference in references(node)]
    aliases = {name for node in nodes for name in names_used(node) if name in module.aliases}
    return [*found, *(list(module.aliases[name]) for name in aliases)]


def _sees_evidence(paths: list[list[str | None]], passive: frozenset[str]) -> bool:
    if any(names[:1] == ["input"] for names in paths):
        return True
    libraries = {names[2] for names in paths if names[:2] == ["data", "kbs"] and len(names) > 2}
    return bool(libraries - passive - {None})
