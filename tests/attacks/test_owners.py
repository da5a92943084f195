"""Owners are separate (P-REL-8): tokens whose scope is one owner's tree, with names that begin alike."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.attacks.world import Site
from tests.fakes.broker import Answer, BrokerUnderTest, Edge

OWNERS = ("a", "a-b", "a.b", "aa", "a_b")

Verb = Callable[[BrokerUnderTest, str, str], Answer]
VERBS: dict[str, Verb] = {
    "write": lambda broker, token, owner: broker.admin("POST", f"resource/{owner}/key/1", b"new", token=token),
    "versions": lambda broker, token, owner: broker.admin("GET", f"admin/resources/{owner}/key/1", token=token),
    "roll back": lambda broker, token, owner: broker.admin(
        "POST", f"admin/resources/{owner}/key/1/rollback", json.dumps({"version": 1}).encode(), token=token
    ),
    "delete": lambda broker, token, owner: broker.admin("DELETE", f"resource/{owner}/key/1", token=token),
}
EVERYBODYS = {
    "list": ("GET", "admin/resources"),
    "list one prefix": ("GET", "admin/resources?prefix=a"),
    "policies": ("GET", "admin/policies"),
    "set policy": ("POST", "resource-policy"),
    "reference values": ("GET", "admin/reference-values"),
    "set reference values": ("POST", "reference-value"),
    "tokens": ("POST", "admin/tokens"),
    "decisions": ("GET", "admin/decisions/00000000000000000000000000000000"),
    "status": ("GET", "admin/status"),
}


@pytest.fixture(params=list(Edge))
def broker(request: pytest.FixtureRequest, site: Site) -> BrokerUnderTest:
    found = site.worker(request.param)
    for owner in OWNERS:
        found.put_secret(f"{owner}/key/1", f"secret of {owner}".encode())
    return found


def token_of(broker: BrokerUnderTest, owner: str) -> str:
    return broker.token_for("admin", scope=[f"/kbs/v0/resource/{owner}", f"/kbs/v0/admin/resources/{owner}"])


@pytest.mark.parametrize("verb", VERBS)
def test_only_the_diagonal(broker: BrokerUnderTest, verb: str) -> None:
    tokens = {owner: token_of(broker, owner) for owner in OWNERS}
    refused = set()
    for asker in OWNERS:
        for owner in OWNERS:
            if asker != owner:
                answer = VERBS[verb](broker, tokens[asker], owner)
                absent = VERBS[verb](broker, tokens[asker], f"{owner}x")
                assert answer.status == absent.status == 403
                refused.add(answer.json["reason"])
                told, of_nothing = (
                    each.json["detail"].replace(f"/{name}/", "/*/")
                    for each, name in ((answer, owner), (absent, f"{owner}x"))
                )
                assert told == of_nothing  # nor whether it is there
    assert refused == {"admin_forbidden"}
    for owner in OWNERS:
        assert VERBS[verb](broker, tokens[owner], owner).status == 200


@pytest.mark.parametrize("what", EVERYBODYS)
def test_what_belongs_to_all_belongs_to_none_of_them(broker: BrokerUnderTest, what: str) -> None:
    """Lists would name the others' secrets, rules would open them, a new token could have more than its maker."""
    method, path = EVERYBODYS[what]
    for owner in OWNERS:
        assert broker.admin(method, path, b"{}", token=token_of(broker, owner)).status == 403


SPELLINGS = (
    "resource/{mine}/../{theirs}/key/1",
    "resource/{mine}/%2e%2e/{theirs}/key/1",
    "resource/{mine}%2f..%2f{theirs}/key/1",
    "resource//{theirs}/key/1",
    "resource/{mine};/../{theirs}/key/1",
    "resource/{theirs}/key/1?x=/kbs/v0/resource/{mine}",
    "resource/{mine}\\..\\{theirs}/key/1",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_leads_to_another_owner(broker: BrokerUnderTest, spelling: str) -> None:
    for mine in OWNERS:
        theirs = OWNERS[(OWNERS.index(mine) + 1) % len(OWNERS)]
        target = spelling.format(mine=mine, theirs=theirs)
        answer = broker.admin("POST", target, b"stolen place", token=token_of(broker, mine))
        assert answer.status in (400, 403), target
    for owner in OWNERS:
        versions = broker.admin("GET", f"admin/resources/{owner}/key/1").json
        assert versions["version"] == 1
