"""What an administrator may do: permissions by role, paths by role, and the scope of the token. Default: nothing.

Two ways of naming rights work side by side and are AND-ed where both apply:

- built-in roles hold permissions; the route table says which permission a route asks for;
- an identity provider may come with path rules (`acls`, as in the reference): its roles then need a rule that matches
  the path. One that only path rules know holds every permission on those paths, since that is all the reference asks;
  one that bears a built-in name holds no more than the built-in role.

A role in neither table may do nothing. Patterns run in google-re2 (linear time) and must match the whole path.
Sources: KBS protocol (administration), threat-model P-RULE-1 to 3, P-ADM-1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

import re2

from kbs.errors import AdminForbidden, ConfigInvalid

MAX_PATTERN: Final = 1024  # characters
_MAX_RULES: Final = 512
_MAX_SCOPE: Final = 64  # entries
_PATTERN_MEMORY: Final = 1 << 20  # octets for one compiled pattern


class Permission(StrEnum):
    """What a route may ask for. `resource.read-metadata` never includes values (threat-model P-ADM-2)."""

    RESOURCE_WRITE = "resource.write"
    RESOURCE_DELETE = "resource.delete"
    RESOURCE_READ_METADATA = "resource.read-metadata"
    POLICY_WRITE = "policy.write"
    POLICY_READ = "policy.read"
    REFERENCE_WRITE = "reference.write"
    REFERENCE_READ = "reference.read"
    AUDIT_READ = "audit.read"
    TOKEN_ISSUE = "token.issue"  # noqa: S105 - the name of a right
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 - the name of a right
    PLUGIN_ADMIN = "plugin.admin"


EVERY_PERMISSION: Final = frozenset(Permission)

BUILT_IN_ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    "admin": EVERY_PERMISSION,
    "resource-writer": frozenset(
        {Permission.RESOURCE_WRITE, Permission.RESOURCE_DELETE, Permission.RESOURCE_READ_METADATA}
    ),
    "policy-author": frozenset({Permission.POLICY_WRITE, Permission.POLICY_READ, Permission.REFERENCE_READ}),
    "reference-publisher": frozenset({Permission.REFERENCE_WRITE, Permission.REFERENCE_READ}),
    "auditor": frozenset(
        {
            Permission.AUDIT_READ,
            Permission.POLICY_READ,
            Permission.REFERENCE_READ,
            Permission.RESOURCE_READ_METADATA,
        }
    ),
}
"""Nobody but `admin` may issue and revoke admin tokens."""


class _Pattern(Protocol):
    """The one method of a compiled re2 pattern used here."""

    def fullmatch(self, text: str) -> object | None: ...


def compile_pattern(pattern: str) -> _Pattern:
    """Compile one path pattern.

    It starts with `^/kbs`, ends with `$`, and no alternation reaches past those anchors. Groups are plain, `(?:…)` or
    named; flags, look-around and `\\Q…\\E` are refused.

    Raises:
        ConfigInvalid: anything else.
    """
    if len(pattern) > MAX_PATTERN:
        raise ConfigInvalid(f"Admin Role regex is longer than {MAX_PATTERN} characters.")
    if not pattern.startswith("^/kbs") or not pattern.endswith("$"):
        raise ConfigInvalid("Admin Role regex must be anchored.")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _PATTERN_MEMORY
    try:
        compiled: _Pattern = re2.compile(pattern, options)
    except re2.error:
        raise ConfigInvalid("Admin Role regex does not compile.") from None
    _check_anchors_hold(pattern)
    return compiled


_CLASS: Final = re.compile(r"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_GROUP: Final = re.compile(r"\((?!\?)|\(\?:|\(\?P?<[A-Za-z0-9_]+>")


def _check_anchors_hold(pattern: str) -> None:
    """Walk a pattern that re2 compiles; every `|` must stand in a group, and the last `$` must be an anchor."""
    depth = at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            if pattern[at + 1] in "QEC":
                raise ConfigInvalid("Admin Role regex: \\Q, \\E and \\C are not accepted.")
            at += 2
            continue
        if character == "[":
            found = _CLASS.match(pattern, at)
            if found is None:
                raise ConfigInvalid("Admin Role regex: a character class is not understood.")
            at = found.end()
            continue
        if character == "(":
            if _GROUP.match(pattern, at) is None:
                raise ConfigInvalid("Admin Role regex: flags and look-around are not accepted.")
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "|" and depth == 0:
            raise ConfigInvalid("Admin Role regex: an alternation outside a group escapes the anchors.")
        at += 1
    if pattern.endswith("\\$") and (len(pattern) - len(pattern[:-1].rstrip("\\"))) % 2 == 0:
        raise ConfigInvalid("Admin Role regex must be anchored.")


@dataclass(frozen=True, slots=True)
class Acl:
    """One path rule, as in the reference's `regex_acl`. methods: upper case; None: every method, as there."""

    role: str
    allowed_endpoints: str
    methods: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Narrows a token to parts of the tree.

    entries: a path (itself and everything below it, whole segments) or a pattern starting with `^`. None of them
        matching: refused; so an empty scope allows nothing.
    """

    entries: tuple[str, ...]
    _patterns: tuple[_Pattern, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, entries: Any) -> Scope:
        """Read the `scope` claim, a list of texts.

        Raises:
            ConfigInvalid: another type, a path that is not canonical and below `/kbs/`, a pattern not accepted.
        """
        if not isinstance(entries, (list, tuple)) or len(entries) > _MAX_SCOPE:
            raise ConfigInvalid(f"scope is not a list of at most {_MAX_SCOPE} paths or patterns")
        patterns = []
        for entry in entries:
            if not isinstance(entry, str):
                raise ConfigInvalid("scope holds something other than text")
            if entry.startswith("^"):
                patterns.append(compile_pattern(entry))
            elif not entry.startswith("/kbs/") or entry.endswith("/") or not is_canonical(entry):
                raise ConfigInvalid("scope holds a path that is not canonical and below /kbs/")
        return cls(tuple(entries), tuple(patterns))

    def allows(self, path: str) -> bool:
        """Whether the path lies inside."""
        return any(_is_at_or_below(path, entry) for entry in self.entries if not entry.startswith("^")) or any(
            pattern.fullmatch(path) is not None for pattern in self._patterns
        )

    def covers(self, other: Scope) -> bool:
        """Whether every entry of `other` is one of these, or a path below one. May say no where set theory says yes."""
        return all(
            entry in self.entries
            or (
                not entry.startswith("^")
                and any(_is_at_or_below(entry, own) for own in self.entries if not own.startswith("^"))
            )
            for entry in other.entries
        )


def _is_at_or_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


@dataclass(frozen=True, slots=True)
class PathRule:
    """A compiled `Acl`."""

    pattern: _Pattern
    methods: frozenset[str] | None

    def allows(self, method: str, path: str) -> bool:
        """Whether it lets this request through."""
        return (self.methods is None or method in self.methods) and self.pattern.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a role is given. paths: None where no path rules apply; an empty tuple allows no path."""

    permissions: frozenset[Permission] = frozenset()
    paths: tuple[PathRule, ...] | None = ()

    def reaches(self, method: str, path: str) -> bool:
        """Whether the path rules, if any, allow the request."""
        return self.paths is None or any(rule.allows(method, path) for rule in self.paths)


NOTHING: Final = Grant()


class Roles:
    """Roles of one source of admin tokens.

    Args:
        permissions: roles and what they hold.
        acls: path rules. None: roles go by permissions alone. A sequence, also an empty one: every role needs a rule
            that matches.

    Raises:
        ConfigInvalid: a pattern not accepted, or too many.
    """

    def __init__(
        self, permissions: Mapping[str, frozenset[Permission]] = BUILT_IN_ROLES, acls: Sequence[Acl] | None = None
    ) -> None:
        if acls is None:
            self._grants = {role: Grant(held, None) for role, held in permissions.items()}
            return
        if len(acls) > _MAX_RULES:
            raise ConfigInvalid(f"more than {_MAX_RULES} admin path rules")
        paths: dict[str, list[PathRule]] = {}
        for acl in acls:
            rule = PathRule(compile_pattern(acl.allowed_endpoints), acl.methods)
            paths.setdefault(acl.role, []).append(rule)
        self._grants = {
            role: Grant(permissions.get(role, EVERY_PERMISSION), tuple(rules)) for role, rules in paths.items()
        }

    def grant(self, role: str) -> Grant:
        """What a role may do; `NOTHING` for one that no table knows."""
        return self._grants.get(role, NOTHING)


@dataclass(frozen=True, slots=True)
class Admin:
    """An administrator whose credential was verified.

    token_id: `jti`, empty where the provider gives none. issuer: `iss`, or the mode that needs no token.
    scope: None: not narrowed. expires: aware, UTC; None without a token.
    """

    subject: str
    role: str
    token_id: str
    issuer: str
    grant: Grant
    scope: Scope | None = None
    expires: datetime | None = None

    @property
    def name(self) -> str:
        """For records and as author: who, and by which token."""
        return f"{self.subject}#{self.token_id}" if self.token_id else self.subject

    def has(self, permission: Permission) -> bool:
        """Whether the role holds the permission. Alone it is not enough; see `authorize`."""
        return permission in self.grant.permissions

    def may_hand_on(self, grant: Grant, scope: Scope | None) -> bool:
        """Whether a token with these rights would have no more than this one.

        Whoever is held to path rules may hand on nothing: a token of ours could not carry them.
        """
        within = self.scope is None or (scope is not None and self.scope.covers(scope))
        return within and self.grant.paths is None and grant.permissions <= self.grant.permissions


def authorize(admin: Admin, method: str, path: str, permission: Permission) -> None:
    """Let through or refuse: permission, then path rules, then scope.

    Args:
        path: without query, exactly the string that dispatch uses.

    Raises:
        AdminForbidden: with the text that the field's tests look for.
    """
    if not (
        is_canonical(path)
        and admin.has(permission)
        and admin.grant.reaches(method, path)
        and (admin.scope is None or admin.scope.allows(path))
    ):
        raise AdminForbidden(f"Admin access denied: Role {admin.role} not allowed for path {path}")


_NOT_CANONICAL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff%;?#\\]|//|/\.\.?(?:/|\Z)")


def is_canonical(path: str) -> bool:
    """Whether a path has one spelling: no escapes, parameters, query, empty or dot segments, control characters."""
    return path.startswith("/") and _NOT_CANONICAL.search(path) is None
