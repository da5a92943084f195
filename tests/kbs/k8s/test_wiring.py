"""What a Pod gets, what refuses it, and that wiring it twice is wiring it once."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.initdata import annotation
from kbs.k8s.model import PROFILE_LABEL, WIRED_ANNOTATION
from kbs.k8s.webhook.cache import to_profile
from kbs.k8s.wiring.findings import FINDINGS, Effect, Finding
from kbs.k8s.wiring.inspection import TIMEOUT, is_pinned
from kbs.k8s.wiring.json_patch import apply
from kbs.k8s.wiring.profile import Profile, choose
from kbs.k8s.wiring.updates import changes
from kbs.k8s.wiring.wire import unwired, volume_name, wire
from kbs.k8s.wiring.workloads import foresee
from tests.fakes.profiles import CLASS, DIGEST, IMAGE, init_data, pod, profile, profile_object, rendered

SEALED: list[dict[str, Any]] = [
    {"secretName": "db", "env": "DB_PASSWORD", "key": "password"},
    {"secretName": "db", "mountPath": "/etc/db", "containers": ["app"]},
    {"secretName": "with.dots", "mountPath": "/etc/dots"},
]


def wired(raw: dict[str, Any], used: Profile) -> dict[str, Any]:
    """A Pod with all that it needs."""
    made = wire(raw, used)
    assert made.refusals == ()
    return apply(made.patch, raw)


def names(found: tuple[Finding, ...]) -> list[str]:
    return [each.name for each in found]


# --- what is added ----------------------------------------------------------------------------------------------------


def test_a_plain_pod_gets_class_init_data_mark_and_pull_policy() -> None:
    used = profile()
    found = wired(pod(), used)
    assert found["spec"]["runtimeClassName"] == CLASS
    assert found["metadata"]["annotations"] == {
        annotation.KEY: used.rendered.annotation,
        WIRED_ANNOTATION: "web/1",
    }
    assert annotation.decode(found["metadata"]["annotations"][annotation.KEY]) == init_data()
    assert found["spec"]["containers"][0]["imagePullPolicy"] == "Always"


def test_sealed_secrets_reach_the_containers_that_are_named() -> None:
    raw = pod(initContainers=[{"name": "first", "image": IMAGE, "env": [{"name": "X", "value": "1"}]}])
    found = wired(raw, profile(sealedSecrets=SEALED))
    first, app = found["spec"]["initContainers"][0], found["spec"]["containers"][0]
    reference = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    assert first["env"] == [{"name": "X", "value": "1"}, reference]
    assert app["env"] == [reference]
    assert [each["mountPath"] for each in first["volumeMounts"]] == ["/etc/dots"]
    assert [each["mountPath"] for each in app["volumeMounts"]] == ["/etc/db", "/etc/dots"]
    assert all(each["readOnly"] is True for each in app["volumeMounts"])
    assert {each["name"]: each["secret"]["secretName"] for each in found["spec"]["volumes"]} == {
        "kbs-sealed-db": "db",
        volume_name("with.dots"): "with.dots",
    }


def test_volume_names_are_dns_labels() -> None:
    assert volume_name("db") == "kbs-sealed-db"
    for name in ("with.dots", "x" * 253, "a-" * 60 + "a"):
        assert len(volume_name(name)) <= 63
        assert "." not in volume_name(name)
    assert volume_name("a.b") != volume_name("a.c")


def test_variables_without_a_key_take_their_own_name() -> None:
    found = wired(pod(), profile(sealedSecrets=[{"secretName": "s", "env": "TOKEN"}]))
    assert found["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "TOKEN"}


def test_images_that_the_node_pulls_keep_their_pull_policy() -> None:
    found = wired(pod(container={"imagePullPolicy": "IfNotPresent"}), profile(images={"pull": "host"}))
    assert found["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    ("images", "given_seconds", "expected"),
    [
        ({}, None, None),
        ({"createContainerTimeout": 900}, None, "900"),
        ({"createContainerTimeout": 900}, "1200", "1200"),
        ({"createContainerTimeout": 900}, "no number", "900"),
        ({"createContainerTimeout": 900}, "-1", "900"),
        ({"encrypted": True}, None, "600"),
        ({"encrypted": True, "createContainerTimeout": 5}, None, "5"),
    ],
)
def test_time_for_large_pulls(images: dict[str, Any], given_seconds: str | None, expected: str | None) -> None:
    raw = pod()
    if given_seconds is not None:
        raw["metadata"]["annotations"] = {TIMEOUT: given_seconds}
    assert wired(raw, profile(images=images))["metadata"]["annotations"].get(TIMEOUT) == expected


def test_pull_secrets_are_added_once() -> None:
    found = wired(pod(imagePullSecrets=[{"name": "a"}]), profile(images={"pullSecrets": ["a", "b"]}))
    assert found["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_an_equal_annotation_and_class_are_kept() -> None:
    used = profile()
    raw = pod(runtimeClassName=CLASS)
    raw["metadata"]["annotations"] = {annotation.KEY: used.rendered.annotation}
    assert [each.path for each in wire(raw, used).patch] == [
        "/metadata/annotations/kbs.confidential.dev~1wired",
        "/spec/containers/0/imagePullPolicy",
    ]


def test_what_is_given_is_not_changed() -> None:
    raw, used = pod(), profile(sealedSecrets=SEALED)
    before = copy.deepcopy(raw)
    wired(raw, used)
    assert raw == before


# --- what is refused --------------------------------------------------------------------------------------------------

HOST_PATH = {"name": "h", "hostPath": {"path": "/"}}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "host network": ("host-network", pod(hostNetwork=True)),
    "host pid": ("host-pid", pod(hostPID=True)),
    "host ipc": ("host-ipc", pod(hostIPC=True)),
    "host path": ("host-path", pod(volumes=[HOST_PATH])),
    "privileged": ("privileged", pod(container={"securityContext": {"privileged": True}})),
    "privileged init": (
        "privileged",
        pod(initContainers=[{"name": "i", "image": IMAGE, "securityContext": {"privileged": True}}]),
    ),
    "proc mount": ("proc-mount", pod(container={"securityContext": {"procMount": "Unmasked"}})),
    "host process": ("host-process", pod(securityContext={"windowsOptions": {"hostProcess": True}})),
    "tag": ("image-not-pinned", pod(container={"image": "nginx:1.27"})),
    "no image": ("image-not-pinned", pod(container={"image": ""})),
    "short digest": ("image-not-pinned", pod(container={"image": "nginx@sha256:abcd"})),
    "digest in capitals": ("image-not-pinned", pod(container={"image": "nginx@sha256:" + "AB" * 32})),
    "init by tag": ("image-not-pinned", pod(initContainers=[{"name": "i", "image": "busybox"}])),
    "sidecar by tag": (
        "image-not-pinned",
        pod(initContainers=[{"name": "i", "image": "busybox", "restartPolicy": "Always"}]),
    ),
    "image volume by tag": ("image-not-pinned", pod(volumes=[{"name": "v", "image": {"reference": "models:1"}}])),
    "ephemeral": ("ephemeral-container", pod(ephemeralContainers=[{"name": "d", "image": IMAGE}])),
    "other class": ("runtime-class-differs", pod(runtimeClassName="runc")),
    "no containers": ("pod-malformed", {"metadata": {}, "spec": {"containers": []}}),
    "no spec": ("pod-malformed", {"metadata": {}}),
    "no object": ("pod-malformed", {"metadata": [], "spec": {"containers": [{"name": "a"}]}}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    name, raw = REFUSED[case]
    made = wire(raw, profile())
    assert name in names(made.refusals)
    assert made.patch == ()


ANNOTATIONS = {
    "io.katacontainers.config.hypervisor.kernel_params": "kata-annotation",
    "io.katacontainers.config.hypervisor.default_vcpus": "kata-annotation",
    "io.katacontainers.config.agent.policy": "kata-annotation",
    "io.katacontainers.config.hypervisor.something_new": "kata-annotation",
    "io.katacontainers.config.runtime.cc_init_data": "init-data-old-name",
    annotation.KEY: "init-data-differs",
}


@pytest.mark.parametrize("key", ANNOTATIONS)
def test_annotations_that_change_the_guest_are_refused(key: str) -> None:
    raw = pod()
    raw["metadata"]["annotations"] = {key: "x"}
    assert names(wire(raw, profile()).refusals) == [ANNOTATIONS[key]]


def test_all_annotations_together_must_fit() -> None:
    used = profile()
    raw = pod()
    taken = len(annotation.KEY) + len(used.rendered.annotation) + len(WIRED_ANNOTATION) + len(used.mark)
    raw["metadata"]["annotations"] = {"k": "x" * (annotation.LIMIT - taken - 1)}
    assert wire(raw, used).refusals == ()
    raw["metadata"]["annotations"]["k"] += "x"
    assert names(wire(raw, used).refusals) == ["annotations-too-large"]


COLLISIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain value": ("env-differs", pod(container={"env": [{"name": "DB_PASSWORD", "value": "x"}]})),
    "one that may be absent": (
        "env-differs",
        pod(
            container={
                "env": [
                    {
                        "name": "DB_PASSWORD",
                        "valueFrom": {"secretKeyRef": {"name": "db", "key": "password", "optional": True}},
                    }
                ]
            }
        ),
    ),
    "another key": (
        "env-differs",
        pod(container={"env": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "p"}}}]}),
    ),
    "a second one behind": (
        "env-differs",
        pod(
            container={
                "env": [
                    {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                    {"name": "DB_PASSWORD", "value": "mine"},
                ]
            }
        ),
    ),
    "volume of that name": ("volume-differs", pod(volumes=[{"name": "kbs-sealed-db", "emptyDir": {}}])),
    "volume of some items": (
        "volume-differs",
        pod(volumes=[{"name": "kbs-sealed-db", "secret": {"secretName": "db", "items": [{"key": "a", "path": "b"}]}}]),
    ),
    "mount": ("mount-differs", pod(container={"volumeMounts": [{"name": "x", "mountPath": "/etc/db"}]})),
    "writable mount": (
        "mount-differs",
        pod(container={"volumeMounts": [{"name": "kbs-sealed-db", "mountPath": "/etc/db"}]}),
    ),
    **{
        f"mount with {member}": (
            "mount-differs",
            pod(
                container={
                    "volumeMounts": [{"name": "kbs-sealed-db", "mountPath": "/etc/db", "readOnly": True, member: "x"}]
                }
            ),
        )
        for member in ("subPath", "subPathExpr")
    },
}


@pytest.mark.parametrize("case", COLLISIONS)
def test_a_pod_does_not_replace_sealed_secrets(case: str) -> None:
    name, raw = COLLISIONS[case]
    assert names(wire(raw, profile(sealedSecrets=SEALED)).refusals) == [name]


def test_two_entries_of_a_profile_for_one_variable_are_refused() -> None:
    twice = [{"secretName": "a", "env": "X"}, {"secretName": "b", "env": "X"}]
    assert names(wire(pod(), profile(sealedSecrets=twice)).refusals) == ["env-differs"]


# --- what is only said ------------------------------------------------------------------------------------------------


def test_warnings() -> None:
    raw = pod(
        shareProcessNamespace=True,
        volumes=[{"name": "v", "secret": {"secretName": "plain"}}, {"name": "w", "secret": {"secretName": "db"}}],
        container={
            "envFrom": [{"secretRef": {"name": "more"}}],
            "volumeMounts": [{"name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        },
    )
    found = wire(raw, profile(sealedSecrets=[{"secretName": "db", "env": "X", "containers": ["gone"]}]))
    assert found.refusals == ()
    assert names(found.warnings) == [
        "shared-process-namespace",
        "plain-secret",
        "plain-secret",
        "service-account-token",
        "container-absent",
    ]


def test_images_by_tag_are_said_where_the_profile_allows_them() -> None:
    made = wire(pod(container={"image": "nginx"}), profile(images={"requireDigest": False}))
    assert made.refusals == ()
    assert names(made.warnings) == ["image-by-tag"]


def test_findings_have_words() -> None:
    for name, (effect, hint) in FINDINGS.items():
        line = Finding(name, "spec", "seen").line()
        assert line == f"[{name}] spec: seen; {hint}"
        assert effect in Effect


@pytest.mark.parametrize(
    ("image", "pinned"),
    [
        (IMAGE, True),
        (f"a:1@{DIGEST}", True),
        ("a@sha512:" + "0" * 128, True),
        (f"@{DIGEST}", False),
        (f"a@{DIGEST} ", False),
        (f"a@{DIGEST}\n", False),
        (f"a@b@{DIGEST}", False),
        ("a@md5:00", False),
    ],
    ids=["plain", "tag", "sha512", "nameless", "blank", "newline", "twice", "md5"],
)
def test_pinned(image: str, pinned: bool) -> None:
    assert is_pinned(image) is pinned


# --- which profile ----------------------------------------------------------------------------------------------------


def test_the_profile_of_the_own_namespace_goes_first() -> None:
    mine, open_one = profile(namespace="shop"), profile(namespace="all", allowedNamespaces=["*"])
    assert choose([open_one, mine], "shop", "web") is mine
    assert choose([open_one, mine], "other", "web") is open_one


def test_choosing_refuses() -> None:
    closed = profile(namespace="a")
    some = [profile(namespace=each, allowedNamespaces=["shop"]) for each in ("a", "b")]
    for given_profiles, name in (
        ([], "profile-unknown"),
        ([closed], "namespace-not-allowed"),
        (some, "profile-ambiguous"),
    ):
        found = choose(given_profiles, "shop", "web")
        assert isinstance(found, Finding)
        assert found.name == name


def status(registered: str = "True", ready: str = "True", observed: int = 3, **more: Any) -> dict[str, Any]:
    conditions = [
        {"type": kind, "status": value, "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind, value in (("Registered", registered), ("Ready", ready))
    ]
    made = rendered()
    return {
        "observedGeneration": observed,
        "conditions": conditions,
        "initDataAnnotation": made["annotation"],
        "initDataDigest": made["digest"],
        "algorithm": made["algorithm"],
        **more,
    }


def of_controller(given_status: dict[str, Any]) -> Profile:
    raw = profile_object()
    raw["spec"] = {"runtimeClassName": CLASS, "initData": {"yaml": "kbs: {}"}}
    raw["metadata"]["generation"] = 3
    return to_profile(raw | {"status": given_status})


def test_a_profile_of_a_controller_is_used_when_it_is_ready() -> None:
    found = of_controller(status())
    assert found.problem is None
    assert found.mark == "web/3"


def test_a_profile_whose_owner_registers_it_himself_is_used() -> None:
    given_status = status(registered="Unknown")
    given_status["conditions"][0]["reason"] = "NoBroker"
    assert of_controller(given_status).problem is None


def test_no_broker_is_no_excuse_for_a_profile_that_names_one() -> None:
    given_status = status(registered="Unknown")
    given_status["conditions"][0]["reason"] = "NoBroker"
    raw = profile_object()
    raw["spec"] = {"runtimeClassName": CLASS, "initData": {"yaml": "kbs: {}"}, "brokerRef": {"name": "kbs"}}
    raw["metadata"]["generation"] = 3
    problem = to_profile(raw | {"status": given_status}).problem
    assert problem is not None
    assert problem.name == "profile-not-registered"


@pytest.mark.parametrize(
    ("given_status", "name"),
    [
        ({}, "profile-not-ready"),
        (status(registered="False"), "profile-not-registered"),
        (status(registered="Unknown"), "profile-not-registered"),
        (status(ready="Unknown"), "profile-not-ready"),
        (status(observed=2), "profile-not-ready"),
        (status(initDataDigest="00" * 32), "profile-broken"),
        (status(initDataAnnotation="rubbish"), "profile-broken"),
        (status(algorithm="sha384"), "profile-broken"),
        ({"observedGeneration": "three"}, "profile-broken"),
    ],
    ids=[
        "no status",
        "not registered",
        "not known",
        "not ready",
        "old",
        "other digest",
        "no annotation",
        "algorithm",
        "malformed",
    ],
)
def test_a_profile_that_must_not_be_used(given_status: dict[str, Any], name: str) -> None:
    found = choose([of_controller(given_status)], "shop", "web")
    assert isinstance(found, Finding)
    assert found.name == name


# --- later changes ----------------------------------------------------------------------------------------------------


def test_what_may_change_later() -> None:
    before = wired(pod(), profile())
    after = copy.deepcopy(before)
    after["metadata"]["annotations"]["team"] = "x"
    after["metadata"]["finalizers"] = ["x"]
    after["spec"]["containers"][0]["image"] = f"other@{DIGEST}"
    assert changes(before, after) == ()


def _set(path: str, value: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        *parents, last = path.split("|")
        found: Any = raw
        for part in parents:
            found = found[int(part) if part.isdigit() else part]
        if value is None:
            del found[last]
        else:
            found[last] = value

    return change


CHANGES = {
    "label off": (_set(f"metadata|labels|{PROFILE_LABEL}", None), "label-changed"),
    "label other": (_set(f"metadata|labels|{PROFILE_LABEL}", "x"), "label-changed"),
    "init data edited": (_set(f"metadata|annotations|{annotation.KEY}", "x"), "wiring-changed"),
    "init data off": (_set(f"metadata|annotations|{annotation.KEY}", None), "wiring-changed"),
    "mark": (_set(f"metadata|annotations|{WIRED_ANNOTATION}", "x"), "wiring-changed"),
    "kata": (_set("metadata|annotations|io.katacontainers.config.hypervisor.image", "x"), "wiring-changed"),
    "image by tag": (_set("spec|containers|0|image", "nginx"), "image-not-pinned"),
    "ephemeral": (_set("spec|ephemeralContainers", [{"name": "d", "image": IMAGE}]), "ephemeral-container"),
    "malformed": (_set("spec|containers", 1), "pod-malformed"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_may_not_change_later(case: str) -> None:
    change, name = CHANGES[case]
    before = wired(pod(), profile())
    after = copy.deepcopy(before)
    change(after)
    assert names(changes(before, after)) == [name]


def test_a_label_cannot_be_put_on_later() -> None:
    assert names(changes(pod(label=None), pod())) == ["label-changed"]


# --- workloads --------------------------------------------------------------------------------------------------------


def _workload(kind: str, template: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    return {"kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
def test_workloads_hear_of_their_pods(kind: str) -> None:
    used = profile()
    assert names(foresee(_workload(kind, pod(hostPID=True)), lambda _: used)) == ["host-pid"]
    assert foresee(_workload(kind, pod()), lambda _: used) == ()
    assert foresee(_workload(kind, pod(label=None)), lambda _: used) == ()


def test_a_label_on_the_workload_alone_is_a_mistake() -> None:
    found = foresee(_workload("Deployment", pod(label=None), labels={PROFILE_LABEL: "web"}), lambda _: profile())
    assert names(found) == ["label-not-on-pods"]


# --- twice is once ----------------------------------------------------------------------------------------------------

_WORDS = st.text("abcxyz-./~01 é", max_size=6)
_ENV = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["DB_PASSWORD", "X", "Y"])},
        optional={
            "value": _WORDS,
            "valueFrom": st.fixed_dictionaries(
                {
                    "secretKeyRef": st.fixed_dictionaries(
                        {"name": st.sampled_from(["db", "e"]), "key": st.sampled_from(["password", "k"])}
                    )
                }
            ),
        },
    ),
    max_size=3,
)
_MOUNTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["kbs-sealed-db", "v"]), "mountPath": st.sampled_from(["/etc/db", "/a"])},
        optional={"readOnly": st.booleans(), "subPath": _WORDS},
    ),
    max_size=2,
)
_CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from(["app", "side"]), "image": st.sampled_from([IMAGE, "nginx"])},
    optional={
        "env": st.none() | _ENV,
        "volumeMounts": st.none() | _MOUNTS,
        "imagePullPolicy": st.sampled_from(["Always", "Never", "IfNotPresent"]),
        "securityContext": st.none() | st.fixed_dictionaries({"privileged": st.booleans()}),
    },
)
_KEYS = st.sampled_from([annotation.KEY, TIMEOUT, WIRED_ANNOTATION, "a/b~c", "io.katacontainers.x"])
_ANNOTATIONS = st.none() | st.dictionaries(_KEYS, _WORDS, max_size=3)
_PODS = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(_CONTAINER, min_size=1, max_size=2)},
            optional={
                "initContainers": st.none() | st.lists(_CONTAINER, max_size=1),
                "volumes": st.none()
                | st.lists(
                    st.sampled_from(
                        [
                            {"name": "kbs-sealed-db", "secret": {"secretName": "db", "defaultMode": 420}},
                            {"name": "kbs-sealed-db", "emptyDir": {}},
                            {"name": "v", "emptyDir": {}},
                        ]
                    ),
                    max_size=2,
                ),
                "runtimeClassName": st.sampled_from([CLASS, "runc"]),
                "hostNetwork": st.booleans(),
                "imagePullSecrets": st.none() | st.just([{"name": "a"}]),
            },
        )
    },
    optional={"metadata": st.fixed_dictionaries({}, optional={"annotations": _ANNOTATIONS})},
)
_PROFILES = st.builds(
    lambda sealed, images: profile(sealedSecrets=sealed, images=images),
    st.lists(st.sampled_from(SEALED), max_size=3, unique_by=json.dumps),
    st.sampled_from([{}, {"pullSecrets": ["a", "b"]}, {"encrypted": True}, {"pull": "host"}, {"requireDigest": False}]),
)


@settings(max_examples=150, deadline=None)
@given(_PODS, _PROFILES)
def test_wiring_twice_is_wiring_once(raw: dict[str, Any], used: Profile) -> None:
    made = wire(raw, used)
    if made.refusals:
        assert made.patch == ()
        return
    once = apply(made.patch, raw)
    again = wire(once, used)
    assert again.refusals == ()
    assert again.patch == ()
    assert unwired(again) == ()
    assert annotation.decode(once["metadata"]["annotations"][annotation.KEY]) == init_data()
    for kind in ("containers", "initContainers"):
        for before, after in zip(raw["spec"].get(kind) or [], once["spec"].get(kind) or [], strict=True):
            assert (before.get("env") or []) == (after.get("env") or [])[: len(before.get("env") or [])]


@settings(max_examples=100, deadline=None)
@given(_PODS, st.sampled_from(["runtimeClassName", "imagePullPolicy", annotation.KEY, WIRED_ANNOTATION]))
def test_whatever_another_webhook_takes_away_is_seen(raw: dict[str, Any], what: str) -> None:
    used = profile()
    made = wire(raw, used)
    if made.refusals:
        return
    found = apply(made.patch, raw)
    if what == "runtimeClassName":
        del found["spec"][what]
    elif what == "imagePullPolicy":
        found["spec"]["containers"][0][what] = "IfNotPresent"
    else:
        del found["metadata"]["annotations"][what]
    assert names(unwired(wire(found, used))) == ["not-wired"]


_MEMBERS = [
    "metadata",
    "spec",
    "containers",
    "env",
    "volumes",
    "annotations",
    "labels",
    "name",
    "image",
    "secret",
    "valueFrom",
    "secretKeyRef",
    "volumeMounts",
    "securityContext",
    "projected",
    "sources",
    "envFrom",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(_MEMBERS), each, max_size=4),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(_JSON)
def test_rubbish_is_refused_and_breaks_nothing(raw: Any) -> None:
    made = wire({"metadata": {}, "spec": raw}, profile())
    assert made.refusals
    assert changes({"spec": raw}, raw)


def test_the_digest_of_a_profile_is_that_of_its_document() -> None:
    assert profile().rendered.digest == hashlib.sha256(init_data()).hexdigest()
