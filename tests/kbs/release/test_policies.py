"""Deny overrides: whatever scopes there are, nothing is allowed that one of them denies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.errors import KbsError, PolicyBroken, PolicyEngineUnavailable, StorageUnavailable
from kbs.policy.candidates import Candidates
from kbs.policy.compile import Compiler
from kbs.policy.decisions import DecisionInputs
from kbs.policy.engine import EvidenceVerdict, Finding, Policy, PolicyKind
from kbs.policy.record import encoded
from kbs.policy.rego_sources import sha256_hex
from kbs.policy.scope import Scopes
from kbs.policy.shipped import Shipped
from kbs.policy.store import Change, PolicyStore
from kbs.release.policies import Consulted, ResourcePolicies
from kbs.storage.memory import MemoryStore
from kbs.storage.recent import Bounds, MemoryRecentStore
from rvps.model import Snapshot
from tests.kbs.policy.support import NOW

RESOURCE = PolicyKind.RESOURCE
SHIPPED = Shipped.load()
CHANGE = Change("ann", NOW)
BOUNDS = Bounds(10, 1 << 20, 3600)
TENANTS = {"t": ["a", "b"], "u": ["b"]}
NAMES = ["a", "b", "c"]
SCOPES = ["tenant:t", "tenant:u", *(f"path:{name}" for name in NAMES)]
SCOPES += [f"path:{name}:{kind}" for name in NAMES for kind in NAMES]
ANSWERS = ["allow", "deny", "broken", "down", "odd"]


class SaysWhatItsTextSays:
    """An engine whose policies are their answers."""

    name, blocks = "fake", False

    def prepare(self, policy: Policy) -> None:
        raise AssertionError

    def authorize(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> Any:
        match policy.text.split()[0]:
            case "allow":
                return True
            case "broken":
                raise PolicyBroken("x")
            case "down":
                raise PolicyEngineUnavailable("x")
            case "odd":
                return 1
        return False

    def appraise(self, policy: Policy, claims_json: bytes, references: Snapshot) -> EvidenceVerdict:
        raise AssertionError

    def explain_appraisal(self, policy: Policy, claims_json: bytes, references: Snapshot) -> Sequence[Finding]:
        raise AssertionError

    def explain_authorization(self, policy: Policy, token_claims_json: bytes, request: Mapping[str, Any]) -> Any:
        raise RuntimeError("an explanation that fails")


def put(kv: MemoryStore, policy_id: str, answer: str, namespace: str = "resource-policy") -> None:
    text = f"{answer} {policy_id}"
    value, meta = encoded(Policy(RESOURCE, text, sha256_hex(text.encode()), None, "uploaded"), CHANGE, "")
    kv.put(namespace, policy_id, value, meta=meta)


def policies(kv: MemoryStore, tenants: Mapping[str, Sequence[str]] = TENANTS) -> ResourcePolicies:
    store = PolicyStore(kv, Compiler(None, lambda: 0), SHIPPED, scopes=Scopes(tenants))
    inputs = DecisionInputs(MemoryRecentStore(BOUNDS), BOUNDS, lambda: NOW)
    return ResourcePolicies(store, SaysWhatItsTextSays(), Candidates(kv, store), inputs)


def asked(*segments: str, plugin: str = "resource") -> dict[str, Any]:
    return {"plugin": plugin, "resource-path": list(segments), "query": {}}


def ask(given: ResourcePolicies, request: Mapping[str, Any]) -> tuple[bool | type[KbsError], Consulted]:
    consulted = Consulted()
    try:
        return given.allow(consulted, b"{}", request, "0" * 32), consulted
    except KbsError as err:
        return type(err), consulted


def mine(path: Sequence[str]) -> set[str]:
    found = {f"path:{path[0]}", f"path:{path[0]}:{path[1]}"}
    return found | {f"tenant:{tenant}" for tenant, repositories in TENANTS.items() if path[0] in repositories}


@given(
    everywhere=st.sampled_from(ANSWERS),
    scoped=st.dictionaries(st.sampled_from(SCOPES), st.sampled_from(ANSWERS)),
    staged=st.dictionaries(st.sampled_from([*SCOPES, "resource-policy"]), st.sampled_from(ANSWERS)),
    path=st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES)),
)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_combination_of_scopes_allows_what_one_of_them_denies(
    everywhere: str, scoped: dict[str, str], staged: dict[str, str], path: tuple[str, str, str]
) -> None:
    kv = MemoryStore()
    put(kv, "resource-policy", everywhere)
    for policy_id, answer in scoped.items():
        put(kv, policy_id, answer)
    for policy_id, answer in staged.items():
        put(kv, f"resource.{policy_id}", answer, "policy-candidate")
    concerned = [everywhere, *(answer for policy_id, answer in scoped.items() if policy_id in mine(path))]
    given_policies = policies(kv)
    outcome, consulted = ask(given_policies, asked(*path))
    assert (outcome is True) == (set(concerned) == {"allow"})
    assert (consulted.denied_by is None) == (outcome is True)
    if outcome is not True:
        culprit = scoped.get(consulted.denied_by or "", everywhere)
        assert culprit != "allow"
        assert outcome is {"broken": PolicyBroken, "down": PolicyEngineUnavailable}.get(culprit, False)
        assert given_policies.explain(consulted, b"{}", asked(*path)) == ()
    if isinstance(outcome, bool):
        assert consulted.shadow.keys() == {each for each in staged if each == "resource-policy" or each in mine(path)}
        for policy_id, said in consulted.shadow.items():
            others = {"resource-policy": everywhere, **scoped} | {policy_id: staged[policy_id]}
            would = all(
                answer == "allow" for each, answer in others.items() if each == "resource-policy" or each in mine(path)
            )
            assert said["differs"] == (would is not outcome) or "error" in said


def test_other_plugins_know_the_global_policy_only() -> None:
    kv = MemoryStore()
    put(kv, "resource-policy", "allow")
    put(kv, "path:a", "deny")
    assert ask(policies(kv), asked("a", "b", plugin="other"))[0] is True
    assert ask(policies(kv), asked(plugin="resource"))[0] is True
    assert ask(policies(kv), asked("a"))[0] is False


@pytest.mark.parametrize("policy_id", ["tenant:gone", "path:a:b:c", "else"])
def test_a_policy_that_cannot_be_placed_closes_everything(policy_id: str) -> None:
    """A tenant that left the settings: what its policy protected is not known any more."""
    kv = MemoryStore()
    put(kv, "resource-policy", "allow")
    put(kv, policy_id, "allow")
    assert ask(policies(kv), asked("z", "z", "z"))[0] is PolicyBroken


def test_a_damaged_scope_is_not_skipped() -> None:
    kv = MemoryStore()
    put(kv, "resource-policy", "allow")
    kv.put("resource-policy", "path:a", b"nonsense", meta={"origin": "uploaded"})
    outcome, consulted = ask(policies(kv), asked("a", "b", "c"))
    assert (outcome, consulted.denied_by) == (StorageUnavailable, "path:a")
    assert ask(policies(kv), asked("b", "b", "c"))[0] is True


def test_only_a_true_removal_removes() -> None:
    kv = MemoryStore()
    put(kv, "resource-policy", "allow")
    kv.put("resource-policy", "path:a", b"something", meta={"origin": "removed"})
    assert ask(policies(kv), asked("a", "b", "c"))[0] is StorageUnavailable
    kv.put("resource-policy", "path:a", b"", meta={"origin": "removed"})
    assert ask(policies(kv), asked("a", "b", "c"))[0] is True


def test_nothing_is_asked_of_the_store_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    kv = MemoryStore()
    put(kv, "resource-policy", "allow")
    put(kv, "path:a", "allow")
    standing = policies(kv)
    assert ask(standing, asked("a", "b", "c"))[0] is True
    with monkeypatch.context() as patched:
        patched.setattr(kv, "get", None)
        patched.setattr(kv, "entries", None)
        assert ask(standing, asked("a", "b", "d"))[0] is True
    put(kv, "path:a:b", "deny")
    assert ask(standing, asked("a", "b", "d"))[0] is False
