"""The five kinds on a real API server: what is taken, what is refused, and that nothing is lost."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kbs.k8s.api import OURS, ApiConflict, ApiInvalid
from kbs.k8s.connection import Connection, connect
from kbs.k8s.controller.kinds import BY_NAME
from kbs.k8s.documents import read, write
from kbs.k8s.model import API_VERSION
from tests.k8s.cluster import Cluster
from tests.k8s.conftest import Command

REF = {"name": "broker"}
GOOD: dict[str, list[dict[str, Any]]] = {
    "KeyBroker": [
        {"url": "https://kbs.example:8081", "adminTokenSecretRef": {"name": "t", "key": "token"}},
        {
            "url": "http://127.0.0.1:8080/",
            "adminTokenSecretRef": {"name": "t", "key": "token"},
            "caBundle": {"secretRef": {"name": "tls", "key": "ca.crt"}},
            "allowedNamespaces": [{"name": "team", "repositories": ["team"]}],
        },
        {"url": "http://kbs:1", "insecureHttp": True, "adminTokenSecretRef": {"name": "t", "key": "token"}},
    ],
    "BrokerResource": [
        {"brokerRef": REF, "path": "a/b", "secretRef": {"name": "s"}},
        {"brokerRef": REF, "path": "a/b/c.d", "secretRef": {"name": "s", "key": "k"}, "deletionPolicy": "Retain"},
    ],
    "BrokerPolicy": [
        {"brokerRef": REF, "kind": "resource", "policyId": "path:team-a", "rego": "package policy"},
        {"brokerRef": REF, "kind": "evidence", "policyId": "default_cpu", "configMapRef": {"name": "c", "key": "k"}},
    ],
    "ReferenceValueSet": [
        {"brokerRef": REF, "statementConfigMapRef": {"name": "c"}},
        {"brokerRef": REF, "statementSecretRef": {"name": "c", "key": "k"}},
        {
            "brokerRef": REF,
            "unsigned": True,
            "values": {"a": ["b", 1, {"c": None}], "d": True},
            "expires": "2027-01-01T00:00:00Z",
        },
    ],
    "WorkloadProfile": [
        {"runtimeClassName": "kata-qemu-snp", "initData": {"yaml": "kbs: {url: 'https://a'}"}},
        {
            "runtimeClassName": "kata",
            "brokerRef": REF,
            "kbsUrl": "https://kbs.example",
            "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}},
            "initData": {"configMapRef": {"name": "i", "key": "initdata.yaml"}},
            "keepOld": "1h30m",
            "sealedSecrets": [{"secretName": "s", "env": "PASSWORD"}, {"secretName": "t", "mountPath": "/sealed"}],
            "images": {"encrypted": True, "pull": "guest", "pullSecrets": ["p"], "createContainerTimeout": 600},
            "allowedNamespaces": ["a", "*"],
        },
        {
            "runtimeClassName": "kata",
            "rendered": {"annotation": "H4sI", "digest": "0" * 64, "algorithm": "sha256", "generation": 3},
        },
    ],
}
BAD: list[tuple[str, int, dict[str, Any], str]] = [
    ("KeyBroker", 0, {"url": "http://kbs.example"}, "spec.url"),
    ("KeyBroker", 0, {"url": "http://127.0.0.1.evil.example"}, "spec.url"),
    ("KeyBroker", 0, {"url": "ftp://kbs.example"}, "spec.url"),
    ("KeyBroker", 0, {"url": "https://user@kbs.example"}, "spec.url"),
    ("KeyBroker", 0, {"caBundle": {}}, "spec.caBundle"),
    ("KeyBroker", 0, {"adminTokenSecretRef": {"name": "t"}}, "spec.adminTokenSecretRef.key"),
    ("BrokerResource", 0, {"path": "a/b/c"}, "spec.path"),
    ("BrokerResource", 1, {"path": "a/b"}, "spec.path"),
    ("BrokerResource", 1, {"path": "a/b/.."}, "spec.path"),
    ("BrokerResource", 1, {"path": "a/b/c/d"}, "spec.path"),
    ("BrokerResource", 1, {"deletionPolicy": "Maybe"}, "spec.deletionPolicy"),
    ("BrokerResource", 1, {"secretRef": None}, "spec.secretRef"),
    ("BrokerPolicy", 0, {"configMapRef": {"name": "c", "key": "k"}}, "spec"),
    ("BrokerPolicy", 0, {"rego": None}, "spec"),
    ("BrokerPolicy", 0, {"policyId": "../x"}, "spec.policyId"),
    ("BrokerPolicy", 0, {"policyId": "default"}, "spec.policyId"),
    ("BrokerPolicy", 0, {"kind": "other"}, "spec.kind"),
    ("ReferenceValueSet", 0, {"statementSecretRef": {"name": "s"}}, "spec"),
    ("ReferenceValueSet", 0, {"unsigned": True}, "spec"),
    ("ReferenceValueSet", 2, {"unsigned": False}, "spec"),
    ("ReferenceValueSet", 2, {"values": {}}, "spec.values"),
    ("ReferenceValueSet", 0, {"expires": "2027-01-01T00:00:00Z"}, "spec"),
    ("WorkloadProfile", 0, {"initData": None}, "spec"),
    ("WorkloadProfile", 0, {"initData": {"yaml": "a", "configMapRef": {"name": "c", "key": "k"}}}, "spec.initData"),
    ("WorkloadProfile", 2, {"brokerRef": REF}, "spec"),
    ("WorkloadProfile", 2, {"initData": {"yaml": "a"}}, "spec"),
    ("WorkloadProfile", 1, {"keepOld": "forever"}, "spec.keepOld"),
    ("WorkloadProfile", 1, {"keepOld": "9000h"}, "spec.keepOld"),
    ("WorkloadProfile", 1, {"images": {"encrypted": True, "pull": "host"}}, "spec.images"),
    ("WorkloadProfile", 1, {"sealedSecrets": [{"secretName": "s"}]}, "spec.sealedSecrets"),
    ("WorkloadProfile", 0, {"runtimeClassName": "Kata!"}, "spec.runtimeClassName"),
]
UNCHANGEABLE = [
    ("BrokerResource", 0, {"path": "a/c"}, "spec.path"),
    ("BrokerResource", 0, {"brokerRef": {"name": "other"}}, "spec.brokerRef"),
    ("BrokerPolicy", 0, {"policyId": "other"}, "spec.policyId"),
    ("BrokerPolicy", 0, {"kind": "evidence"}, "spec.kind"),
    ("ReferenceValueSet", 0, {"brokerRef": {"name": "other"}}, "spec.brokerRef"),
    ("WorkloadProfile", 1, {"brokerRef": None}, "spec"),
]


@pytest.fixture(scope="module")
def api(cluster: Cluster, installed_crds: list[str]) -> Iterator[Connection]:
    assert len(installed_crds) == 5
    made = connect(cluster.kubeconfig, user_agent="test")
    yield made
    made.close()


def _object(kind: str, name: str, spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    whole = {**copy.deepcopy(spec), **changes}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name},
        "spec": {member: value for member, value in whole.items() if value is not None},
    }


def test_what_is_taken_is_read_back_as_it_was(api: Connection, namespace: str) -> None:
    for kind, specs in GOOD.items():
        for number, spec in enumerate(specs):
            made = api.create(OURS[kind], namespace, _object(kind, f"good-{number}", spec, {}))
            found = read(BY_NAME[kind], made).spec
            assert found == read(BY_NAME[kind], {"spec": spec}).spec, "the types and the API server default alike"
            assert read(BY_NAME[kind], {"spec": write(found)}).spec == found


def test_what_is_refused(api: Connection, namespace: str) -> None:
    """All in one test: a namespace for each would take longer than the questions."""
    for kind, number, changes, field in BAD:
        with pytest.raises(ApiInvalid) as refused:
            api.create(OURS[kind], namespace, _object(kind, "bad", GOOD[kind][number], changes))
        assert re.search(rf"[(,] ?{re.escape(field)}", str(refused.value)), (kind, changes, str(refused.value))


def test_what_does_not_change(api: Connection, namespace: str) -> None:
    for kind, number, changes, field in UNCHANGEABLE:
        name = f"{kind.lower()}-{number}"
        spec = GOOD[kind][number]
        with contextlib.suppress(ApiConflict):
            api.create(OURS[kind], namespace, _object(kind, name, spec, {}))
        with pytest.raises(ApiInvalid, match=field):
            api.patch(OURS[kind], namespace, name, {"spec": changes})


def test_a_status_of_a_user_is_not_taken(api: Connection, namespace: str) -> None:
    """A profile that says of itself that it is ready would be wired into Pods."""
    profile = _object("WorkloadProfile", "p", GOOD["WorkloadProfile"][0], {})
    made = api.create(OURS["WorkloadProfile"], namespace, {**profile, "status": {"initDataDigest": "00"}})
    assert "status" not in made


def test_the_whole_status_is_kept(api: Connection, namespace: str) -> None:
    """No member of the types is unknown to the API server, which would drop it without a word."""
    for kind, status in STATUS.items():
        api.create(OURS[kind], namespace, _object(kind, "s", GOOD[kind][1], {}))
        kept = api.patch(OURS[kind], namespace, "s", {"status": status}, subresource="status")
        assert kept["status"] == status
        assert write(read(BY_NAME[kind], kept).status) == status, "and the types know all of it"


def test_columns(api: Connection, namespace: str, kubectl: Command) -> None:
    api.create(OURS["KeyBroker"], namespace, _object("KeyBroker", "b", GOOD["KeyBroker"][0], {}))
    api.patch(OURS["KeyBroker"], namespace, "b", {"status": STATUS["KeyBroker"]}, subresource="status")
    shown = kubectl("get", "kb", "-n", namespace).stdout
    assert shown.split("\n")[0].split() == ["NAME", "URL", "READY", "REASON", "SECURE", "VERSION", "AGE"]
    assert "https://kbs.example:8081" in shown
    assert "True" in shown
    everything = kubectl("get", "kbs", "-n", namespace, "-o", "name").stdout
    assert "keybroker" in everything
    explained = json.loads(kubectl("get", "kb", "b", "-n", namespace, "-o", "json").stdout)
    assert explained["status"]["version"] == "1.0"


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Because",
    "message": "of that",
    "lastTransitionTime": "2026-11-21T12:00:00Z",
    "observedGeneration": 1,
}
_BASE: dict[str, Any] = {"observedGeneration": 1, "conditions": [CONDITION]}
STATUS: dict[str, dict[str, Any]] = {
    "KeyBroker": _BASE | {"version": "1.0", "tees": ["snp"], "policySet": "default", "insecure": ["insecure_x"]},
    "BrokerResource": _BASE
    | {"resources": [{"path": "a/b/c", "version": 2}], "secret": {"uid": "u", "resourceVersion": "7"}},
    "BrokerPolicy": _BASE | {"version": 3, "digest": "00", "refused": "11"},
    "ReferenceValueSet": _BASE
    | {"digest": "00", "refused": "1", "messages": 2, "names": ["a"], "acceptedAt": "2026-11-21T12:00:00Z"},
    "WorkloadProfile": _BASE
    | {
        "initDataAnnotation": "H4sI",
        "initDataDigest": "00",
        "algorithm": "sha256",
        "kbsUrl": "https://kbs.example",
        "registered": [{"name": "a", "digest": "00", "until": "2026-11-22T12:00:00Z"}, {"name": "b", "digest": "11"}],
        "broker": "kbs/broker",
    },
}
