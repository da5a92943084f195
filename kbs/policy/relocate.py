"""Move Rego modules below a name of their own, so that one OPA server can hold those of many policies and brokers.

Policies all say `package policy` and read the request from `data`. Every `package` and every `data` of a module gets
the same extra first part: `package kbs_….policy`, `data.kbs_….plugin`. What the words are is decided by a small lexer;
that none was missed is then checked on the syntax tree of the server that will evaluate it.

The library below `data.kbs` is the same for all: it has a root of its own, to which policies' references to it move.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any, Final

from kbs.policy.outcome import broken

_TOKENS: Final = re.compile(
    r"""
    (?P<skip> \#[^\n]* | "(?:\\.|[^"\\\n])*" | `[^`]*` | \.\s*[A-Za-z_]\w* )
    | (?<!\w) (?P<word> data ) (?!\w)
      (?P<library> (?:\.kbs | \["kbs"\]) (?:\.(?P<name>[a-z_]+)(?!\w) | \["(?P<quoted>[a-z_]+)"\]) )?
    """,
    re.VERBOSE,
)
_PACKAGE: Final = re.compile(r"(?P<head>(?:\s|\#[^\n]*\n)*)package[ \t]+(?P<path>[a-z_]+(?:\.[a-z_]+)*)(?=\s|\#|;|\Z)")
_MAX_DEPTH: Final = 500


def relocate(
    text: str, root: str, *, expected: str | None = None, library: str | None = None, shared: Set[str] = frozenset()
) -> str:
    """The module with its package and all of its data below `root` (letters, digits, underscore).

    library, shared: root of the library, and names of its packages: `data.kbs.NAME` moves there.

    Raises:
        PolicyBroken: it does not begin with a package of plain names, or with another than `expected`.
    """
    package = _PACKAGE.match(text)
    if package is None or (expected is not None and package["path"] != expected):
        raise broken("the policy does not begin with its package")

    def moved(found: re.Match[str]) -> str:
        if not found["word"]:
            return found[0]
        rest = found["library"] or ""
        to = library if library is not None and (found["name"] or found["quoted"]) in shared else root
        return f"data.{to}{rest}"

    body = _TOKENS.sub(moved, text[package.end() :])
    return f"{package['head']}package {root}.{package['path']}{body}"


def check_relocated(
    module: Any, root: str, own: Set[str] | None = None, *, library: str | None = None, shared: Set[str] = frozenset()
) -> None:
    """Check the server's syntax tree of a relocated module: nothing in it reads data of anybody else.

    own: first parts of the data that it may read; None: the root alone.
    library, shared: of that root only these packages, and nothing below `kbs` of its own root, which they moved from.

    Raises:
        PolicyBroken: a reference was not moved (expressions inside template strings are not).
    """
    if not isinstance(module, dict):
        raise broken("the OPA server gives no syntax tree of the policy")
    package = module.get("package")
    if not isinstance(package, dict) or _names(package.get("path"))[:2] != ["data", root]:
        raise broken("the OPA server holds another package than the one sent")
    for path in _data_paths([module.get("rules"), module.get("imports")], 0):
        if library is not None and path[1:2] == [library]:
            is_own = path[2:3] == ["kbs"] and len(path) > 3 and path[3] in shared
        else:
            is_own = len(path) > 1 and path[1] in (own or {root}) and (library is None or path[2:3] != ["kbs"])
        if not is_own:
            raise broken("the policy refers to data in a way that a shared OPA server cannot keep apart")


def _data_paths(node: Any, depth: int) -> Iterator[list[Any]]:
    if depth > _MAX_DEPTH:
        raise broken("the policy is nested too deeply")
    if isinstance(node, list):
        for item in node:
            yield from _data_paths(item, depth + 1)
    elif isinstance(node, dict):
        names = _names(node.get("value")) if node.get("type") == "ref" else []
        if names[:1] == ["data"]:
            yield names
        for item in node.values():
            yield from _data_paths(item, depth + 1)


def _names(terms: Any) -> list[Any]:
    return [term.get("value") for term in terms if isinstance(term, dict)] if isinstance(terms, list) else []
