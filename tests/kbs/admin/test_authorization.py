"""What administrators may do: patterns, roles, scopes, spellings of paths."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.admin.authorization import (
    BUILT_IN_ROLES,
    EVERY_PERMISSION,
    NOTHING,
    Acl,
    Admin,
    Grant,
    Permission,
    Roles,
    Scope,
    authorize,
    compile_pattern,
    is_canonical,
)
from kbs.errors import AdminForbidden, ConfigInvalid

VECTORS = Path(__file__).parents[2] / "vectors/tokens"
ADMIN_VECTORS = json.loads((VECTORS / "admin-vectors.json").read_text())
REGEX_DIFFERENCES = json.loads((VECTORS / "differences.json").read_text())["admin-vectors.json#acl_regex_validity"]


def admin(role: str, roles: Roles | None = None, scope: Any = None) -> Admin:
    grant = (Roles() if roles is None else roles).grant(role)
    return Admin("somebody", role, "id", "issuer", grant, None if scope is None else Scope.parse(scope))


def may(who: Admin, path: str, permission: Permission = Permission.RESOURCE_WRITE, method: str = "POST") -> bool:
    try:
        authorize(who, method, path, permission)
    except AdminForbidden:
        return False
    return True


def test_text_of_refusals() -> None:
    with pytest.raises(AdminForbidden) as caught:
        authorize(admin("auditor"), "POST", "/kbs/v0/resource/a/b/c", Permission.RESOURCE_WRITE)
    assert str(caught.value) == "Admin access denied: Role auditor not allowed for path /kbs/v0/resource/a/b/c"


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ADMIN_VECTORS["acl_regex_validity"], ids=lambda case: str(case["regex"]))
def test_patterns_of_the_field(case: Any) -> None:
    expected = case["accepted"]
    if case["regex"] in REGEX_DIFFERENCES:
        assert REGEX_DIFFERENCES[case["regex"]]["reference"] == expected
        expected = REGEX_DIFFERENCES[case["regex"]]["ours"]
    if expected:
        compile_pattern(case["regex"])
    else:
        with pytest.raises(ConfigInvalid):
            compile_pattern(case["regex"])


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("^/kbs/v0/(a|b)$", "/kbs/v0/a", "/kbs/v0/ab"),
        ("^/kbs/v0/(?:a|b)/.+$", "/kbs/v0/b/x", "/kbs/v0/b/"),
        ("^/kbs/v0/(?P<name>[a-z]+)$", "/kbs/v0/abc", "/kbs/v0/abc/d"),
        ("^/kbs/v0/(?<name>[a-z]+)$", "/kbs/v0/abc", "/kbs/v0/ABC"),
        ("^/kbs/v0/[|]$", "/kbs/v0/|", "/kbs/v0/"),
        ("^/kbs/v0/[]|]$", "/kbs/v0/]", "/kbs/v0/[]"),
        ("^/kbs/v0/[^]|]$", "/kbs/v0/x", "/kbs/v0/|"),
        ("^/kbs/v0/[[:alpha:]|]+$", "/kbs/v0/a|b", "/kbs/v0/1"),
        ("^/kbs/v0/[(]$", "/kbs/v0/(", "/kbs/v0/()"),
        (r"^/kbs/v0/[\]|(]$", "/kbs/v0/(", "/kbs/v0/x"),
        (r"^/kbs/v0/a\|b$", "/kbs/v0/a|b", "/kbs/v0/a"),
        (r"^/kbs/v0/\(a$", "/kbs/v0/(a", "/kbs/v0/a"),
        (r"^/kbs/v0/a\\$", "/kbs/v0/a\\", "/kbs/v0/a"),
        (r"^/kbs/v0/\w+$", "/kbs/v0/a_1", "/kbs/v0/é"),
        ("^/kbs/v0/a.c$", "/kbs/v0/abc", "/kbs/v0/a\nc"),
        ("^/kbs/v0/a$", "/kbs/v0/a", "/kbs/v0/a\n"),
        ("^/kbs$", "/kbs", "x/kbs"),
        ("^/kbs/((a|b)|(c|d))/e$", "/kbs/d/e", "/kbs/e"),
    ],
)
def test_patterns_match_the_whole_path(pattern: str, inside: str, outside: str) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.fullmatch(inside) is not None
    assert compiled.fullmatch(outside) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "^/kbs/a$|^/kbs/b$",
        "^/kbs/a|.*$",
        "^/kbs(a)|(b)$",
        "^/kbs/[a]|[b]$",
        "^/kbs/|$",
        r"^/kbs/\\|b$",
        r"^/kbs/[\\]|b$",
        "^/kbs/[]]|b$",
        "^/kbs/[^]]|b$",
        "^/kbs/[[:alpha:]]|b$",
        "^/kbs/(?i)a$",
        "^/kbs/(?i:a)$",
        "^/kbs/(?m)a$",
        "^/kbs/(?s:.)$",
        "^/kbs/(?-s).$",
        "^/kbs/(?=a)a$",
        "^/kbs/(?!a)b$",
        "^/kbs/(?<=a)b$",
        r"^/kbs/(a)\1$",
        "^/kbs/(?>a)$",
        r"^/kbs/\Qa|b\E$",
        r"^/kbs/\Qa$",
        r"^/kbs/\C$",
        r"^/kbs/a\$",
        r"^/kbs/a\\\$",
        "^/kbs/(a$",
        "^/kbs/a)$",
        "^/kbs/[a$",
        "^/kbs/a{1001}$",
        "^/kbs/((a{1,900}){1,900})$",
        "/kbs/a$",
        "(^/kbs/a$)",
        "^/kbs/a",
        "^/kbs/a$\n",
        " ^/kbs/a$",
        "^(/kbs|/x)/a$",
        "^/KBS/a$",
        "^/kbs/" + "a" * 1024 + "$",
    ],
)
def test_other_patterns_are_refused_at_load(pattern: str) -> None:
    with pytest.raises(ConfigInvalid):
        compile_pattern(pattern)
    with pytest.raises(ConfigInvalid):
        Roles(acls=[Acl("r", pattern)])


_PIECES = st.sampled_from(["a", "|", "(", ")", "(?:", "[", "]", "[^", "\\", "\\\\", "$", "^", ".", "*", "+", "-", ":",
                           "[:alpha:]", "/", "\\Q", "\\E", "\\d", "{2}", "(?i)", "(?P<n>", "x", "\\|",
                           "\\$"])  # fmt: skip


@settings(max_examples=600)
@given(st.lists(_PIECES, max_size=8))
def test_whatever_is_accepted_stays_behind_its_prefix(pieces: list[str]) -> None:
    """re2 itself says which strings a pattern can match: all of them begin with the anchor's literal."""
    pattern = "^/kbs/" + "".join(pieces) + "$"
    try:
        compile_pattern(pattern)
    except ConfigInvalid:
        return
    options = re2.Options()
    options.log_errors = False
    compiled = re2.compile(pattern, options)
    for text in ("a", "x", "/b", "", "|", "ax", "/kbx", "xa"):
        assert compiled.fullmatch(text) is None
        assert compiled.search(text) is None


def test_hostile_patterns_stay_linear() -> None:
    """P-RULE-3: this one hangs backtracking engines."""
    compiled = compile_pattern(r"^/kbs/(\w+/?)+$")
    started = time.process_time()
    assert compiled.fullmatch("/kbs/" + "a" * 10_000 + "!") is None
    assert time.process_time() - started < 0.05


def test_number_of_rules_is_bounded() -> None:
    with pytest.raises(ConfigInvalid, match="more than"):
        Roles(acls=[Acl("r", "^/kbs/a$")] * 513)


# --- roles ------------------------------------------------------------------------------------------------------------

EXPECTED: dict[str, set[str]] = {
    "admin": {str(permission) for permission in Permission},
    "resource-writer": {"resource.write", "resource.delete", "resource.read-metadata"},
    "policy-author": {"policy.write", "policy.read", "reference.read"},
    "reference-publisher": {"reference.write", "reference.read"},
    "auditor": {"audit.read", "policy.read", "reference.read", "resource.read-metadata"},
    "nobody": set(),
    "": set(),
    "Admin": set(),
    "admin ": set(),
}


@pytest.mark.parametrize("role", EXPECTED)
@pytest.mark.parametrize("permission", list(Permission))
def test_built_in_roles(role: str, permission: Permission) -> None:
    who = admin(role)
    assert who.has(permission) == (permission in EXPECTED[role])
    assert may(who, "/kbs/v0/anything", permission) == (permission in EXPECTED[role])


def test_only_admin_makes_tokens() -> None:
    makers = {role for role, held in BUILT_IN_ROLES.items() if held & {Permission.TOKEN_ISSUE, Permission.TOKEN_REVOKE}}
    assert makers == {"admin"}


def test_path_rules_of_the_reference() -> None:
    """Rules of one role are OR-ed; a role only they know holds every permission there; roles without a rule nothing."""
    roles = Roles(acls=[Acl(acl["role"], acl["allowed_endpoints"]) for acl in ADMIN_VECTORS["acls"]])
    writer = admin("writer", roles)
    assert may(writer, "/kbs/v0/resource/team1/b/c")
    assert may(writer, "/kbs/v0/resource/team2/b/c", Permission.POLICY_WRITE)
    assert not may(writer, "/kbs/v0/resource/team3/b/c")
    assert not may(writer, "/kbs/v0/resource/team1")
    assert not may(admin("auditor", roles), "/kbs/v0/admin/status", Permission.AUDIT_READ)
    assert may(admin("admin", roles), "/kbs/v0/resource-policy", Permission.POLICY_WRITE)
    assert not may(admin("admin", roles), "/kbs/v1/resource-policy", Permission.POLICY_WRITE)


def test_path_rules_and_built_in_permissions_are_both_needed() -> None:
    roles = Roles(acls=[Acl("auditor", "^/kbs/v0/admin/.+$")])
    who = admin("auditor", roles)
    assert may(who, "/kbs/v0/admin/status", Permission.AUDIT_READ)
    assert not may(who, "/kbs/v0/admin/tokens", Permission.TOKEN_ISSUE)
    assert not may(who, "/kbs/v0/resource-policy", Permission.POLICY_READ)


def test_rules_may_name_methods() -> None:
    roles = Roles(acls=[Acl("reader", "^/kbs/v0/.+$", frozenset({"GET"}))])
    assert may(admin("reader", roles), "/kbs/v0/x", method="GET")
    assert not may(admin("reader", roles), "/kbs/v0/x", method="POST")
    assert not may(admin("reader", roles), "/kbs/v0/x", method="get")


def test_no_rules_is_not_all_rules() -> None:
    assert Roles(acls=[]).grant("admin") is NOTHING
    assert Roles({}).grant("admin") is NOTHING
    assert not may(Admin("x", "admin", "", "", NOTHING), "/kbs/v0/x")
    assert not may(Admin("x", "admin", "", "", Grant(EVERY_PERMISSION, ())), "/kbs/v0/x")


# --- scope ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "path", "inside"),
    [
        (["/kbs/v0/resource/team"], "/kbs/v0/resource/team", True),
        (["/kbs/v0/resource/team"], "/kbs/v0/resource/team/a/b", True),
        (["/kbs/v0/resource/team"], "/kbs/v0/resource/team-b/a/b", False),
        (["/kbs/v0/resource/team"], "/kbs/v0/resource/teams", False),
        (["/kbs/v0/resource/team"], "/kbs/v0/resource", False),
        (["/kbs/v0/resource/team"], "/kbs/v0/resource/Team/a", False),
        (["^/kbs/v0/resource/(a|b)/.+$"], "/kbs/v0/resource/b/x", True),
        (["^/kbs/v0/resource/(a|b)/.+$"], "/kbs/v0/resource/c/x", False),
        (["/kbs/v0/a", "/kbs/v0/b"], "/kbs/v0/b/c", True),
        ([], "/kbs/v0/a", False),
    ],
)
def test_scope_narrows_every_role(scope: list[str], path: str, inside: bool) -> None:
    assert may(admin("admin", scope=scope), path) == inside
    assert not may(admin("auditor", scope=scope), path)


@pytest.mark.parametrize(
    "scope",
    ["/kbs/v0/a", None, {}, 1, [1], [None], [["/kbs/v0/a"]], [""], ["/"], ["/kbs"], ["/kbs/"], ["/kbs/v0/a/"],
     ["/kbs//a"], ["/kbs/../a"], ["/kbs/v0/%61"], ["kbs/v0/a"], ["/kbs/v0/a\n"], [".*"], ["^/kbs/a|/b$"], ["^.*$"],
     ["/kbs/v0/a"] * 65],
)  # fmt: skip
def test_other_scopes_are_refused(scope: Any) -> None:
    with pytest.raises(ConfigInvalid):
        Scope.parse(scope)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        (["/kbs/v0"], ["/kbs/v0/a", "/kbs/v0"], True),
        (["/kbs/v0/a"], ["/kbs/v0/a/b"], True),
        (["/kbs/v0/a"], ["/kbs/v0/ab"], False),
        (["/kbs/v0/a"], ["/kbs/v0"], False),
        (["/kbs/v0/a"], ["/kbs/v0/a", "/kbs/v0/b"], False),
        (["/kbs/v0"], ["^/kbs/v0/a$"], False),
        (["^/kbs/v0/a$"], ["^/kbs/v0/a$"], True),
        (["^/kbs/v0/a$"], ["/kbs/v0/a"], False),
        (["/kbs/v0"], [], True),
    ],
)
def test_covers(wide: list[str], narrow: list[str], covered: bool) -> None:
    assert Scope.parse(wide).covers(Scope.parse(narrow)) == covered


# --- spellings --------------------------------------------------------------------------------------------------------

_ROLES = Roles(acls=[Acl("writer", "^/kbs/v0/resource/team1/.+$"), Acl("writer", "^/kbs/v0/[^/]+$")])
_FORBIDDEN = ("resource", "team2", "b", "c")


def _spellings() -> list[str]:
    """Ways to write a forbidden path so that it looks like an allowed one, or like something else to a dispatcher."""
    slashes = ["/", "//", "%2f", "%2F", "%252f", "\\", "%5c", "/./", "/%2e/", "/../", ";/", "/;/", "\u2215"]
    tops = ["/kbs/v0/", "/kbs/v0/resource/team1/../../", "/kbs/v0/resource/team1/%2e%2e/%2e%2e/", "/kbs/v0/./",
            "//kbs/v0/", "/KBS/v0/", "/kbs/V0/", "/kbs/v0/resource/team1/..;/..;/"]  # fmt: skip
    tails = [
        "",
        "?/kbs/v0/resource/team1/x",
        "#/team1/",
        "\n",
        "\r\n/kbs/v0/x",
        ";a=b",
        "%00",
        "\x00",
        "%0a",
        "/",
        "/.",
    ]
    found = [
        top + slash.join(_FORBIDDEN) + tail
        for top, slash, tail in itertools.product(tops, slashes, tails)
    ]  # fmt: skip
    found += [f"/kbs/v0/resource/team1\u0000/../team2/b/c{tail}" for tail in tails]
    return found


def test_no_spelling_of_a_forbidden_path_passes() -> None:
    """P-RULE-2. What is let through, if anything, is a name below the allowed folder or a single plain segment."""
    who = admin("writer", _ROLES)
    spellings = _spellings()
    assert len(spellings) >= 500
    for path in spellings:
        if may(who, path):
            rest = path.removeprefix("/kbs/v0/")
            assert "/" not in rest, path
            assert not set("%;?#\\\n\r\x00") & set(rest), path


@pytest.mark.parametrize(
    "path",
    ["", "kbs", "/kbs//a", "//kbs/a", "/kbs/.", "/kbs/..", "/kbs/./a", "/kbs/../a", "/kbs/a?", "/kbs/a#b", "/kbs/%61",
     "/kbs/a;b", "/kbs/a\\b", "/kbs/a\n", "/kbs/\x7f", "/kbs/\x85", "/kbs/\u2028", "/kbs/\ud800"],
)  # fmt: skip
def test_not_canonical(path: str) -> None:
    assert not is_canonical(path)
    assert not may(admin("admin"), path)


@pytest.mark.parametrize("path", ["/", "/kbs/v0/a", "/kbs/v0/a.b/..c/...", "/kbs/v0/x:y@z,w=~", "/kbs/v0/é", "/kbs/a/"])
def test_canonical(path: str) -> None:
    assert is_canonical(path)


def test_name_for_records() -> None:
    assert admin("admin").name == "somebody#id"
    assert Admin("anonymous", "admin", "", "mode", NOTHING).name == "anonymous"
