"""KeyBrokers, BrokerPolicies, ReferenceValueSets and WorkloadProfiles: what is sent when, and what is said."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.errors import AdminRefused, ClientError, Problem, TryLater, UnexpectedAnswer, Unreachable
from kbs.initdata import annotation
from kbs.k8s.api import OURS, SECRETS
from kbs.k8s.controller.profiles import entry_name, plan
from kbs.k8s.controller.queue import Key
from kbs.k8s.documents import read
from kbs.k8s.model import FINALIZER, WORKLOAD_PROFILE, RegisteredDigest, rendered
from tests.kbs.k8s.controller.bench import BROKER_REF, NAMESPACE, TOKEN, Bench

# --- KeyBroker --------------------------------------------------------------------------------------------------------


def test_a_broker_that_answers(bench: Bench) -> None:
    bench.broker_ready()
    assert bench.said("KeyBroker", "broker") == ("True", "Answered")
    assert bench.said("KeyBroker", "broker", "Secure") == ("True", "NothingInsecure")
    status = bench.status("KeyBroker", "broker")
    assert (status["version"], status["tees"], status["policySet"]) == ("0.1.0", ["snp"], "default")
    assert [each.token.reveal() for each in bench.connections] == [TOKEN]
    writes = len(bench.api.writes)
    bench.look("KeyBroker", "broker")
    assert len(bench.api.writes) == writes, "nothing new is not written"
    assert len(bench.connections) == 1


def test_what_the_broker_says_is_unsafe_is_shown(bench: Bench) -> None:
    bench.broker.said["insecure"] = ["insecure_sample"]
    bench.broker_ready()
    assert bench.said("KeyBroker", "broker", "Secure") == ("False", "InsecureSettings")
    assert bench.said("KeyBroker", "broker") == ("True", "Answered")
    assert bench.status("KeyBroker", "broker")["insecure"] == ["insecure_sample"]


def test_an_answer_of_another_form_is_read_as_far_as_it_goes(bench: Bench) -> None:
    bench.broker.said = {"version": 7, "tees": "snp", "insecure": [1, "x" * 999]}
    bench.broker_ready()
    assert bench.said("KeyBroker", "broker", "Secure")[0] == "False"
    assert "version" not in bench.status("KeyBroker", "broker")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unreachable("no answer"), "BrokerUnreachable"),
        (AdminRefused(Problem(401, "AdminAuthAccess", "no")), "TokenRefused"),
        (AdminRefused(Problem(403, "AdminAuthAccess", "no")), "PermissionDenied"),
        (TryLater(Problem(503, "DependencyUnavailable", "later", retry_after=7)), "BrokerBusy"),
        (UnexpectedAnswer("a proxy"), "BrokerFailed"),
    ],
    ids=["away", "401", "403", "503", "proxy"],
)
def test_a_broker_that_does_not(bench: Bench, error: ClientError, reason: str) -> None:
    bench.broker_ready()
    bench.broker.failure = error
    found = bench.look("KeyBroker", "broker")
    assert found.failed
    assert found.pause == (7 if reason == "BrokerBusy" else 0)
    assert bench.said("KeyBroker", "broker", "Reachable") == ("False", reason)
    assert bench.said("KeyBroker", "broker", "Secure") == ("Unknown", "NotReachable")
    assert ("KeyBroker", reason) in bench.events()


def test_a_new_token_is_used_at_the_next_look(bench: Bench) -> None:
    bench.broker_ready()
    bench.secret("token", {"token": b"another"})
    bench.look("KeyBroker", "broker")
    assert [each.token.reveal() for each in bench.connections] == [TOKEN, b"another"]
    assert bench.broker.closed == 1


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"adminTokenSecretRef": {"name": "none", "key": "token"}}, "SecretMissing"),
        ({"adminTokenSecretRef": {"name": "token", "key": "none"}}, "SecretKeyMissing"),
        ({"caBundle": {"configMapRef": {"name": "none", "key": "ca"}}}, "ConfigMapMissing"),
        ({"caBundle": {"secretRef": {"name": "token", "key": "ca"}}}, "SecretKeyMissing"),
    ],
    ids=["secret", "key", "config map", "ca key"],
)
def test_what_a_broker_needs_is_missing(bench: Bench, spec: dict[str, Any], reason: str) -> None:
    bench.broker_ready(**spec)
    assert bench.said("KeyBroker", "broker") == ("False", reason)


# --- BrokerPolicy -----------------------------------------------------------------------------------------------------


def _policy(**more: Any) -> dict[str, Any]:
    return {"brokerRef": BROKER_REF, "kind": "resource", "policyId": "resource-policy", "rego": "package a", **more}


def test_a_policy_is_set_once(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "p", _policy())
    for _ in range(3):
        bench.look("BrokerPolicy", "p")
    assert bench.broker.writes == ["policy resource/resource-policy"]
    assert bench.said("BrokerPolicy", "p") == ("True", "Active")
    assert bench.status("BrokerPolicy", "p")["digest"] == hashlib.sha256(b"package a").hexdigest()


def test_a_policy_that_is_refused_is_sent_once_and_the_old_one_stays(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "p", _policy())
    bench.look("BrokerPolicy", "p")
    bench.apply("BrokerPolicy", "p", _policy(rego="broken"))
    for _ in range(3):
        assert not bench.look("BrokerPolicy", "p").failed
        assert bench.said("BrokerPolicy", "p", "Compiled") == ("False", "Refused")
        ready = bench.condition("BrokerPolicy", "p")
        assert "rego_parse_error" in ready["message"]
        assert "version 1 stays in force" in ready["message"]
    assert bench.broker.policies[("resource", "resource-policy")] == (1, b"package a")
    assert len(bench.broker.writes) == 2
    bench.apply("BrokerPolicy", "p", _policy(rego="package b"))
    bench.look("BrokerPolicy", "p")
    assert bench.said("BrokerPolicy", "p", "Compiled") == ("True", "Accepted")
    assert bench.said("BrokerPolicy", "p") == ("True", "Active")


def test_a_policy_in_a_config_map_follows_it(bench: Bench) -> None:
    bench.broker_ready()
    bench.config_map("texts", {"p.rego": "package a"})
    spec = _policy(configMapRef={"name": "texts", "key": "p.rego"})
    del spec["rego"]
    bench.apply("BrokerPolicy", "p", spec)
    bench.look("BrokerPolicy", "p")
    bench.config_map("texts", {"p.rego": "broken"})
    bench.look("BrokerPolicy", "p")
    assert bench.said("BrokerPolicy", "p") == ("False", "Refused")
    bench.config_map("texts", {"p.rego": "package b"})
    bench.look("BrokerPolicy", "p")
    assert bench.broker.policies[("resource", "resource-policy")][1] == b"package b"
    assert bench.said("BrokerPolicy", "p") == ("True", "Active")


def test_a_policy_that_somebody_changed_is_set_again(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "p", _policy())
    bench.look("BrokerPolicy", "p")
    bench.broker.policies[("resource", "resource-policy")] = (9, b"package other")
    bench.look("BrokerPolicy", "p")
    assert bench.broker.policies[("resource", "resource-policy")][1] == b"package a"


def test_two_objects_for_one_policy(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "b", _policy(), created="2026-11-21T10:00:00Z")
    bench.apply("BrokerPolicy", "a", _policy(rego="package other"), created="2026-11-21T10:00:01Z")
    for name in ("a", "b", "a"):
        bench.look("BrokerPolicy", name)
    assert bench.said("BrokerPolicy", "a", "Conflict") == ("True", "PolicyTaken")
    assert bench.broker.policies[("resource", "resource-policy")][1] == b"package a"


@pytest.mark.parametrize("kind", ["BrokerPolicy", "ReferenceValueSet"])
def test_rules_come_from_the_brokers_own_namespace_only(bench: Bench, kind: str) -> None:
    bench.broker_ready(allowedNamespaces=[{"name": "team", "repositories": ["team"]}])
    ref = {"name": "broker", "namespace": NAMESPACE}
    specs = {
        "BrokerPolicy": _policy(brokerRef=ref),
        "ReferenceValueSet": {"brokerRef": ref, "unsigned": True, "values": {"a": ["b"]}},
    }
    bench.apply(kind, "x", specs[kind], "team")
    bench.look(kind, "x", "team")
    assert bench.said(kind, "x", namespace="team") == ("False", "BrokerNotAllowed")
    assert bench.broker.writes == []


@pytest.mark.parametrize("changed", [False, True], ids=["ours", "changed"])
def test_the_end_of_a_policy(bench: Bench, *, changed: bool) -> None:
    bench.broker_ready()
    bench.apply("BrokerPolicy", "p", _policy(policyId="path:team", deletionPolicy="Delete"))
    bench.look("BrokerPolicy", "p")
    if changed:
        bench.broker.policies[("resource", "path:team")] = (9, b"package other")
    bench.delete("BrokerPolicy", "p")
    bench.look("BrokerPolicy", "p")
    assert not bench.exists("BrokerPolicy", "p")
    assert bool(bench.broker.policies) == changed, "a text of somebody else stays"


# --- ReferenceValueSet ------------------------------------------------------------------------------------------------


def _values(**values: Any) -> dict[str, Any]:
    return {"brokerRef": BROKER_REF, "unsigned": True, "values": values, "deletionPolicy": "Delete"}


def test_values_are_stated_once_and_withdrawn_ones_stay_away(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("ReferenceValueSet", "v", _values(a=["1"], b=["2"]))
    bench.look("ReferenceValueSet", "v")
    bench.broker.values.pop("a")  # somebody withdrew it in an emergency
    for _ in range(2):
        bench.look("ReferenceValueSet", "v")
    assert bench.broker.values == {"b": ["2"]}
    bench.apply("ReferenceValueSet", "v", _values(b=["3"]))
    bench.look("ReferenceValueSet", "v")
    assert bench.broker.values == {"b": ["3"]}
    assert bench.status("ReferenceValueSet", "v")["names"] == ["b"]
    bench.delete("ReferenceValueSet", "v")
    bench.look("ReferenceValueSet", "v")
    assert bench.broker.values == {}
    assert not bench.exists("ReferenceValueSet", "v")


def test_values_say_before_they_end(bench: Bench) -> None:
    """They are not stated again by themselves, so nobody must be surprised."""
    bench.broker_ready()
    bench.apply("ReferenceValueSet", "v", _values(a=["1"]))
    for days, expiring, ready in (
        (0, ("False", "Lasting"), ("True", "Accepted")),
        (334, ("False", "Lasting"), ("True", "Accepted")),
        (2, ("True", "EndsSoon"), ("True", "Accepted")),
        (30, ("True", "Ended"), ("False", "Ended")),
    ):
        bench.pass_time(days=days)
        bench.look("ReferenceValueSet", "v")
        assert bench.said("ReferenceValueSet", "v", "Expiring") == expiring
        assert bench.said("ReferenceValueSet", "v") == ready
    assert {("ReferenceValueSet", "EndsSoon"), ("ReferenceValueSet", "Ended")} <= set(bench.events())
    bench.apply("ReferenceValueSet", "v", {**_values(a=["1"]), "expires": "2029-01-01T00:00:00Z"})
    bench.look("ReferenceValueSet", "v")
    assert bench.said("ReferenceValueSet", "v", "Expiring") == ("False", "Lasting")
    assert bench.said("ReferenceValueSet", "v") == ("True", "Accepted")


def test_values_go_to_another_broker_too(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("ReferenceValueSet", "v", _values(a=["1"]))
    bench.look("ReferenceValueSet", "v")
    bench.broker.values.clear()
    bench.broker_ready(url="https://another.example")
    bench.look("ReferenceValueSet", "v")
    assert bench.broker.values == {"a": ["1"]}


@pytest.mark.parametrize("where", ["statementConfigMapRef", "statementSecretRef"])
def test_signed_messages_go_as_they_are(bench: Bench, where: str) -> None:
    bench.broker_ready()
    texts = {"one": '{"version": "0.1.0", "type": "x", "payload": "AA=="}', "two": '{"type": "y"}'}
    if where == "statementSecretRef":
        bench.secret("m", {name: text.encode() for name, text in texts.items()})
    else:
        bench.config_map("m", texts)
    bench.apply("ReferenceValueSet", "v", {"brokerRef": BROKER_REF, where: {"name": "m"}})
    for _ in range(2):
        bench.look("ReferenceValueSet", "v")
    assert bench.broker.messages == [json.loads(text) for text in texts.values()]
    assert bench.status("ReferenceValueSet", "v")["messages"] == 2
    assert bench.said("ReferenceValueSet", "v") == ("True", "Accepted")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({}, "StatementMissing"),
        ({"a": "no json"}, "StatementMalformed"),
        ({"a": "[]"}, "StatementMalformed"),
        ({"a": '{"type": "x"}', "b": '{"type": "x", "type": "y"}'}, "StatementMalformed"),
    ],
    ids=["none", "text", "array", "twice"],
)
def test_messages_that_are_none(bench: Bench, texts: dict[str, str], reason: str) -> None:
    bench.broker_ready()
    bench.config_map("m", texts)
    bench.apply("ReferenceValueSet", "v", {"brokerRef": BROKER_REF, "statementConfigMapRef": {"name": "m"}})
    bench.look("ReferenceValueSet", "v")
    assert bench.said("ReferenceValueSet", "v") == ("False", reason)
    assert bench.broker.messages == []


def test_a_message_that_is_refused_is_sent_once(bench: Bench) -> None:
    bench.broker_ready()
    bench.config_map("m", {"a": '{"type": "bad"}'})
    bench.apply("ReferenceValueSet", "v", {"brokerRef": BROKER_REF, "statementConfigMapRef": {"name": "m"}})
    for _ in range(3):
        assert not bench.look("ReferenceValueSet", "v").failed
        assert bench.said("ReferenceValueSet", "v", "Accepted") == ("False", "Refused")
        assert "signature" in bench.condition("ReferenceValueSet", "v")["message"]
    assert bench.broker.writes == ["register"]


# --- WorkloadProfile --------------------------------------------------------------------------------------------------


def _profile(**more: Any) -> dict[str, Any]:
    return {
        "runtimeClassName": "kata",
        "brokerRef": BROKER_REF,
        "kbsUrl": "https://kbs.example",
        "initData": {"yaml": "labels: {a: one}"},
        "keepOld": "1h",
        **more,
    }


def _changed(text: str) -> dict[str, Any]:
    return _profile(initData={"yaml": f"labels: {{a: {text}}}"})


def test_a_profile_is_rendered_and_registered(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    for _ in range(2):
        bench.look("WorkloadProfile", "w")
    status = bench.status("WorkloadProfile", "w")
    (document,) = bench.broker.entries.values()
    assert annotation.decode(status["initDataAnnotation"]) == document
    assert hashlib.sha256(document).hexdigest() == status["initDataDigest"]
    assert b'url = "https://kbs.example"' in document
    assert len(bench.broker.writes) == 1
    raw = bench.api.read(OURS["WorkloadProfile"], NAMESPACE, "w")
    assert raw is not None
    made = rendered(read(WORKLOAD_PROFILE, raw))
    assert made is not None
    assert made.digest == status["initDataDigest"]


def test_the_document_before_stays_for_a_while(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    bench.look("WorkloadProfile", "w")
    (first,) = bench.broker.entries
    bench.apply("WorkloadProfile", "w", _changed("two"))
    assert bench.look("WorkloadProfile", "w").after == 3600
    assert len(bench.broker.entries) == 2
    bench.pass_time(minutes=59)
    bench.look("WorkloadProfile", "w")
    assert first in bench.broker.entries
    bench.pass_time(minutes=2)
    bench.restart()
    bench.look("KeyBroker", "broker")
    bench.look("WorkloadProfile", "w")
    assert first not in bench.broker.entries
    assert len(bench.status("WorkloadProfile", "w")["registered"]) == 1


def test_more_documents_than_a_status_has_room_for(bench: Bench) -> None:
    """None is registered that could not be written down: nobody would ever take it away."""
    bench.broker_ready()
    for number in range(65):
        bench.apply("WorkloadProfile", "w", _changed(f"v{number}"))
        bench.look("WorkloadProfile", "w")
    assert bench.said("WorkloadProfile", "w") == ("False", "TooManyKept")
    assert len(bench.broker.entries) == 64
    bench.pass_time(hours=2)
    bench.look("WorkloadProfile", "w")
    assert bench.said("WorkloadProfile", "w") == ("True", "Registered")
    assert len(bench.broker.entries) == 2


def test_back_to_the_document_before(bench: Bench) -> None:
    bench.broker_ready()
    for spec in (_profile(), _changed("two"), _profile()):
        bench.apply("WorkloadProfile", "w", spec)
        bench.look("WorkloadProfile", "w")
    bench.pass_time(hours=2)
    bench.look("WorkloadProfile", "w")
    (left,) = bench.broker.entries.values()
    assert b'"a" = "one"' in left


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"initData": {"yaml": "unknown: 1"}}, "InitDataMalformed"),
        ({"initData": {"yaml": "[1]"}}, "InitDataMalformed"),
        ({"initData": {"yaml": "kbs: {url: 'https://other.example'}"}}, "InitDataMalformed"),
        ({"initData": {"yaml": "agent_policy: none.rego"}}, "FileMissing"),
        ({"initData": {"configMapRef": {"name": "none", "key": "a"}}}, "ConfigMapMissing"),
        ({"caBundle": {"configMapRef": {"name": "none", "key": "a"}}}, "ConfigMapMissing"),
        ({"initData": {"yaml": "labels: {a: b}", "files": {}}, "kbsUrl": None}, "InitDataMalformed"),
        ({"initData": {"yaml": f"attestation_agent: {{a: 0x{'f' * 6000}}}"}}, "InitDataMalformed"),
    ],
    ids=["unknown member", "no object", "two addresses", "no file", "no config map", "no ca", "no address", "number"],
)
def test_a_profile_that_does_not_render_leaves_what_is_registered(
    bench: Bench, spec: dict[str, Any], reason: str
) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    bench.look("WorkloadProfile", "w")
    changed = {name: value for name, value in _profile(**spec).items() if value is not None}
    bench.apply("WorkloadProfile", "w", changed)
    bench.look("WorkloadProfile", "w")
    assert bench.said("WorkloadProfile", "w", "Rendered") == ("False", reason)
    assert bench.said("WorkloadProfile", "w")[0] == "False"
    assert len(bench.broker.entries) == 1
    raw = bench.api.read(OURS["WorkloadProfile"], NAMESPACE, "w")
    assert raw is not None
    assert rendered(read(WORKLOAD_PROFILE, raw)) is None, "and no Pod is wired with it"


def test_the_authority_comes_from_the_bundle(bench: Bench) -> None:
    bench.broker_ready()
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    bench.config_map("ca", {"ca.crt": pem, "i": "agent_policy: p.rego", "p.rego": "package agent_policy"})
    source = {"configMapRef": {"name": "ca", "key": "i"}}
    bundle = {"configMapRef": {"name": "ca", "key": "ca.crt"}}
    bench.apply("WorkloadProfile", "w", _profile(initData=source, caBundle=bundle))
    bench.look("WorkloadProfile", "w")
    (document,) = bench.broker.entries.values()
    assert pem.encode() in document
    assert b"package agent_policy" in document


def test_a_broker_that_is_away_takes_nothing_from_a_registered_profile(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    bench.look("WorkloadProfile", "w")
    bench.broker.failure = Unreachable("no answer")
    assert bench.look("WorkloadProfile", "w").failed
    assert bench.said("WorkloadProfile", "w") == ("True", "BrokerUnreachable")
    bench.apply("WorkloadProfile", "w", _changed("two"))
    bench.look("WorkloadProfile", "w")
    assert bench.said("WorkloadProfile", "w") == ("False", "BrokerUnreachable")


def test_a_profile_without_a_broker_is_only_rendered(bench: Bench) -> None:
    spec = _profile()
    del spec["brokerRef"]
    bench.apply("WorkloadProfile", "w", spec)
    bench.look("WorkloadProfile", "w")
    assert bench.said("WorkloadProfile", "w") == ("True", "NoBroker")
    assert bench.said("WorkloadProfile", "w", "Registered") == ("Unknown", "NoBroker")


def test_a_copy_is_left_alone(bench: Bench) -> None:
    copy = {"annotation": "H4sI", "digest": "0" * 64, "algorithm": "sha256", "generation": 1}
    bench.apply("WorkloadProfile", "w", {"runtimeClassName": "kata", "rendered": copy})
    writes = len(bench.api.writes)
    assert bench.look("WorkloadProfile", "w").gone
    assert len(bench.api.writes) == writes


def test_the_end_of_a_profile(bench: Bench) -> None:
    bench.broker_ready()
    for spec in (_profile(), _changed("two")):
        bench.apply("WorkloadProfile", "w", spec)
        bench.look("WorkloadProfile", "w")
    bench.delete("WorkloadProfile", "w")
    bench.look("WorkloadProfile", "w")
    assert bench.broker.entries == {}
    assert not bench.exists("WorkloadProfile", "w")


@pytest.mark.parametrize("gone", [False, True], ids=["looked at", "deleted"])
def test_a_status_that_somebody_wrote_takes_away_nothing_of_others(bench: Bench, *, gone: bool) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    bench.look("WorkloadProfile", "w")
    bench.broker.entries["k8s.other.web.0123456789abcdef"] = b"x"
    forged = {"name": "k8s.other.web.0123456789abcdef", "digest": "00", "until": "2020-01-01T00:00:00Z"}
    registered = [forged, *bench.status("WorkloadProfile", "w")["registered"]]
    bench.api.patch(
        OURS["WorkloadProfile"], NAMESPACE, "w", {"status": {"registered": registered}}, subresource="status"
    )
    if gone:
        bench.delete("WorkloadProfile", "w")
    bench.look("WorkloadProfile", "w")
    assert "k8s.other.web.0123456789abcdef" in bench.broker.entries
    assert bench.exists("WorkloadProfile", "w") is not gone


def test_finalizers_of_others_stay(bench: Bench) -> None:
    bench.broker_ready()
    bench.apply("WorkloadProfile", "w", _profile())
    raw = bench.api.read(OURS["WorkloadProfile"], NAMESPACE, "w")
    assert raw is not None
    raw["metadata"]["finalizers"] = ["example.com/other"]
    bench.api.put(OURS["WorkloadProfile"], raw)
    bench.look("WorkloadProfile", "w")
    found = bench.api.read(OURS["WorkloadProfile"], NAMESPACE, "w")
    assert found is not None
    assert found["metadata"]["finalizers"] == ["example.com/other", FINALIZER]
    bench.delete("WorkloadProfile", "w")
    bench.look("WorkloadProfile", "w")
    found = bench.api.read(OURS["WorkloadProfile"], NAMESPACE, "w")
    assert found is not None
    assert found["metadata"]["finalizers"] == ["example.com/other"]
    assert bench.look("WorkloadProfile", "w").gone
    bench.api.remove(SECRETS, NAMESPACE, "token")


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAMES = st.sampled_from(["a", "b", "c"])
TIMES = st.none() | st.integers(-3, 3).map(lambda hours: (NOW + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ"))


@given(known=st.dictionaries(NAMES, TIMES), held=st.dictionaries(NAMES, st.just("00")), keep=st.integers(0, 3))
def test_plan(known: dict[str, str | None], held: dict[str, str], keep: int) -> None:
    """The current entry is never removed, old ones end in time, and none is forgotten while the broker has it."""
    entries = tuple(RegisteredDigest(name, "11", until) for name, until in known.items())
    steps = plan("a", "00", entries, held, NOW, timedelta(hours=keep))
    assert steps.after[-1] == RegisteredDigest("a", "00")
    assert "a" not in steps.remove
    assert {each.name for each in steps.after} | set(steps.remove) == set(known) | {"a"}
    assert steps.register == ("a" not in held)
    for each in steps.after[:-1]:
        assert each.until is not None
        assert NOW < datetime.fromisoformat(each.until) <= NOW + timedelta(hours=keep)


def test_names_of_entries_fit_and_differ() -> None:
    long = Key("WorkloadProfile", "n" * 63, "p" * 253)
    names = {
        entry_name(key, digest)
        for key in (long, Key("WorkloadProfile", "a", "b-c"), Key("WorkloadProfile", "a-b", "c"))
        for digest in ("00", "11")
    }
    assert len(names) == 6
    assert all(len(name) <= 128 and name.startswith("k8s.") for name in names)
