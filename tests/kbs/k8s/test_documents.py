"""Objects are read strictly, and the ones in the documents are objects that this release reads."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kbs.errors import MalformedMessage
from kbs.k8s.documents import duration, moment, read, write
from kbs.k8s.model import (
    API_VERSION,
    BROKER_RESOURCE,
    KINDS,
    WORKLOAD_PROFILE,
    DeletionPolicy,
    rendered,
)

ROOT = Path(__file__).parents[3]
PROFILE: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": "WorkloadProfile",
    "metadata": {"name": "w", "namespace": "ns", "generation": 3},
    "spec": {"runtimeClassName": "kata", "initData": {"yaml": "a"}},
}
READY = {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z"}
STATUS = {
    "observedGeneration": 3,
    "conditions": [READY],
    "initDataAnnotation": "H4sI",
    "initDataDigest": "00",
    "algorithm": "sha256",
}


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {},
        {"runtimeClassName": 1},
        {"runtimeClassName": "kata", "unknown": 1},
        {"runtimeClassName": "kata", "initData": {"files": 3}},
        {"runtimeClassName": "kata", "sealedSecrets": {}},
        {"runtimeClassName": "kata", "sealedSecrets": [{"secretName": "s", "env": 1}]},
        {"runtimeClassName": "kata", "images": {"requireDigest": "yes"}},
    ],
    ids=["null", "array", "empty", "number", "unknown", "files", "object", "env", "text"],
)
def test_a_spec_of_another_form_is_refused(spec: Any) -> None:
    with pytest.raises(MalformedMessage, match="WorkloadProfile"):
        read(WORKLOAD_PROFILE, {**PROFILE, "spec": spec})


@pytest.mark.parametrize("change", [{"kind": "Pod"}, {"apiVersion": "v1"}], ids=["kind", "version"])
def test_another_kind_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(MalformedMessage, match="not a WorkloadProfile"):
        read(WORKLOAD_PROFILE, {**PROFILE, **change})


def test_an_unknown_deletion_policy_is_refused() -> None:
    spec = {"brokerRef": {"name": "b"}, "path": "a/b", "secretRef": {"name": "s"}}
    assert read(BROKER_RESOURCE, {"spec": spec}).spec.deletion_policy is DeletionPolicy.DELETE
    with pytest.raises(MalformedMessage):
        read(BROKER_RESOURCE, {"spec": {**spec, "deletionPolicy": "delete"}})


def test_a_status_of_a_later_release_is_read() -> None:
    found = read(WORKLOAD_PROFILE, {**PROFILE, "status": {**STATUS, "later": [1]}})
    assert write(found.status) == STATUS


@pytest.mark.parametrize(
    "change",
    [
        {"observedGeneration": 2},
        {"conditions": []},
        {"conditions": [{**READY, "status": "False"}]},
        {"initDataAnnotation": None},
        {"initDataDigest": None},
        {"algorithm": None},
    ],
    ids=["older", "no condition", "not ready", "no annotation", "no digest", "no algorithm"],
)
def test_only_what_is_ready_and_current_is_for_pods(change: dict[str, Any]) -> None:
    status = {name: value for name, value in {**STATUS, **change}.items() if value is not None}
    assert rendered(read(WORKLOAD_PROFILE, {**PROFILE, "status": STATUS})) is not None
    assert rendered(read(WORKLOAD_PROFILE, {**PROFILE, "status": status})) is None


def test_durations_and_times() -> None:
    assert duration("1h30m") == timedelta(minutes=90)
    assert duration("0s") == timedelta(0)
    for wrong in ("", "5", "1d", "-1h", "1.5h", "h"):
        with pytest.raises(MalformedMessage):
            duration(wrong)
    with pytest.raises(ValueError, match="zone"):
        moment("2026-11-21T12:00:00")


def test_the_types_and_the_definitions_have_the_same_members() -> None:
    for kind in KINDS:
        definition = yaml.safe_load((ROOT / f"k8s/crds/{kind.plural}.yaml").read_text())
        (version,) = definition["spec"]["versions"]
        members = version["schema"]["openAPIV3Schema"]["properties"]
        for part, known in (("spec", kind.spec), ("status", kind.status)):
            names = {re.sub(r"_(.)", lambda found: found[1].upper(), name) for name in known.__dataclass_fields__}
            assert set(members[part]["properties"]) == names, (kind.name, part)


def test_objects_in_the_documents() -> None:
    kinds = {kind.name: kind for kind in KINDS}
    found = set()
    text = (ROOT / "docs/kubernetes-controller.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        for raw in yaml.safe_load_all(block):
            found.add(read(kinds[raw["kind"]], raw).kind)
    assert found == set(kinds)
