"""Every rule: what the shipped base has right, spoilt, is found under its name; and nothing else that is an error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import MalformedMessage
from kbs.k8s.lint import RULES, Rendered, Severity, lint, read
from tests.kbs.k8s.lint.conftest import Manifests, _good

Spoil = Callable[[Manifests], Any]
RESTRICTED = "restricted-profile"


def found(manifests: Manifests, *, dev: bool = False, severity: Severity | None = None) -> set[str]:
    """Names of rules."""
    findings = lint(Rendered(tuple(manifests), dev=dev))
    return {each.rule for each in findings if severity in (None, each.severity)}


def test_the_base_has_nothing(good: Manifests) -> None:
    assert found(good) == set()


def _own(name: str, value: Any) -> Spoil:
    return lambda good: good.container["securityContext"].update({name: value})


def _shared(name: str, value: Any) -> Spoil:
    return lambda good: good.pod["securityContext"].update({name: value})


def _pod(name: str, value: Any) -> Spoil:
    return lambda good: good.pod.update({name: value})


POD_CASES: dict[str, tuple[str, Spoil]] = {
    "host network": (RESTRICTED, _pod("hostNetwork", True)),
    "host pid": (RESTRICTED, _pod("hostPID", True)),
    "host ipc": (RESTRICTED, _pod("hostIPC", True)),
    "host path": (RESTRICTED, lambda good: good.pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    "nfs volume": (RESTRICTED, lambda good: good.pod["volumes"].append({"name": "x", "nfs": {"path": "/"}})),
    "unsafe sysctl": (RESTRICTED, _shared("sysctls", [{"name": "kernel.msgmax", "value": "1"}])),
    "privileged": (RESTRICTED, _own("privileged", True)),
    "escalation": (RESTRICTED, _own("allowPrivilegeEscalation", True)),
    "escalation by default": (
        RESTRICTED,
        lambda good: good.container["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    "root allowed": (RESTRICTED, _shared("runAsNonRoot", False)),
    "root allowed by the container": (RESTRICTED, _own("runAsNonRoot", False)),
    "root": (RESTRICTED, _own("runAsUser", 0)),
    "no seccomp": (RESTRICTED, lambda good: good.pod["securityContext"].pop("seccompProfile")),
    "seccomp off": (RESTRICTED, _own("seccompProfile", {"type": "Unconfined"})),
    "capabilities kept": (RESTRICTED, lambda good: good.container["securityContext"].pop("capabilities")),
    "capability added": (RESTRICTED, _own("capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]})),
    "proc unmasked": (RESTRICTED, _own("procMount", "Unmasked")),
    "selinux": (RESTRICTED, _shared("seLinuxOptions", {"type": "spc_t"})),
    "apparmor off": (RESTRICTED, _own("appArmorProfile", {"type": "Unconfined"})),
    "host process": (RESTRICTED, _shared("windowsOptions", {"hostProcess": True})),
    "host port": (RESTRICTED, lambda good: good.container["ports"][0].update(hostPort=8080)),
    "probe of another host": (
        RESTRICTED,
        lambda good: good.container["livenessProbe"]["httpGet"].update(host="169.254.169.254"),
    ),
    "no security context": (RESTRICTED, lambda good: good.container.pop("securityContext")),
    "an init container is no exception": (
        RESTRICTED,
        _pod("initContainers", [{"name": "x", "image": "x@sha256:0", "securityContext": {"privileged": True}}]),
    ),
    "host users": ("host-users", _pod("hostUsers", True)),
    "writable root": ("writable-root", _own("readOnlyRootFilesystem", False)),
    "no memory limit": ("no-memory-limit", lambda good: good.container.pop("resources")),
    "image without tag": ("image-moves", lambda good: good.container.update(image="registry:5000/kbs")),
    "image latest": ("image-moves", lambda good: good.container.update(image="kbs:latest")),
    "image by tag": ("image-by-tag", lambda good: good.container.update(image="registry:5000/kbs:1.0")),
    "token asked for": ("service-account-token", _pod("automountServiceAccountToken", True)),
    "token by account": (
        "service-account-token",
        lambda good: (
            good.pod.pop("automountServiceAccountToken"),
            good.one("ServiceAccount").pop("automountServiceAccountToken"),
        ),
    ),
}


def _both(*spoils: Spoil) -> Spoil:
    def spoil(good: Manifests) -> None:
        for each in spoils:
            each(good)

    return spoil


def _scaled(good: Manifests) -> None:
    target = {"kind": "StatefulSet", "name": "kbs"}
    good.add("HorizontalPodAutoscaler", spec={"scaleTargetRef": target, "maxReplicas": 4})


def _as_deployment(good: Manifests) -> None:
    good.pod["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    good.one("StatefulSet")["kind"] = "Deployment"


def _ephemeral(good: Manifests) -> None:
    good.spec.pop("volumeClaimTemplates")
    good.pod["volumes"].append({"name": "data", "emptyDir": {}})


def _without_volume(name: str) -> Spoil:
    def spoil(good: Manifests) -> None:
        mounts = good.container["volumeMounts"]
        good.container["volumeMounts"] = [each for each in mounts if each["name"] != name]

    return spoil


def _set(name: str, value: str) -> Spoil:
    return lambda good: good.add_setting(name, value)


BROKER_CASES: dict[str, tuple[str, Spoil]] = {
    "settings do not decode": ("settings-invalid", _set("KBS__SERVER__LISTEN", "8080")),
    "unknown setting": ("settings-invalid", _set("KBS__SERVER__LISTENS", "8080")),
    "settings elsewhere": ("settings-unknown", lambda good: good.one("ConfigMap", "kbs-settings").update(data={})),
    "no admin listener": ("ports-together", lambda good: _replace(good, 'admin_listen = "0.0.0.0:8081"\n', "")),
    "loopback": ("loopback", _set("KBS__SERVER__LISTEN", '["127.0.0.1:8080"]')),
    "sample": (
        "insecure-switch",
        _both(_set("KBS__ATTESTATION__INSECURE_SAMPLE", "true"), _set("KBS__ATTESTATION__TEES", '["sample"]')),
    ),
    "anybody is admin": ("insecure-switch", _set("KBS__ADMIN__MODE", "insecure-allow-all")),
    "replicas on SQLite": ("replicas-without-postgres", lambda good: good.spec.update(replicas=2)),
    "autoscaled on SQLite": ("replicas-without-postgres", _scaled),
    "rolling update on one store": ("two-at-once", _as_deployment),
    "memory": (
        "store-in-memory",
        _both(_set("KBS__STORAGE__KIND", "memory"), _set("KBS__SERVER__WORKERS", "1")),
    ),
    "emptyDir": ("store-not-lasting", _ephemeral),
    "no volume at all": ("store-not-lasting", _without_volume("data")),
    "audit log elsewhere": ("store-not-lasting", _set("KBS__AUDIT__LOG", "/tmp/log.jsonl")),
    "secret in a variable": (
        "secret-in-variable",
        lambda good: good.container["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {"name": "x"}}}),
    ),
    "secrets in variables": (
        "secret-in-variable",
        lambda good: good.container.update(envFrom=[{"secretRef": {"name": "x"}}]),
    ),
    "secret among manifests": ("secret-in-manifest", lambda good: good.add("Secret", data={"a": "YQ=="})),
    "key from a ConfigMap": ("key-not-from-secret", _set("KBS__KEYS__ADMIN", "/etc/kbs/settings/admin.pem")),
    "keys on no volume": ("key-not-from-secret", _without_volume("keys")),
    "no TLS key": ("key-not-from-secret", _without_volume("tls")),
    "no probe": ("no-probe", lambda good: good.container.pop("readinessProbe")),
    "probe without TLS": ("probe-scheme", lambda good: good.container["livenessProbe"]["httpGet"].pop("scheme")),
}


def _replace(good: Manifests, old: str, new: str) -> None:
    data = good.one("ConfigMap", "kbs-settings")["data"]
    assert old in data["kbs.toml"]
    data["kbs.toml"] = data["kbs.toml"].replace(old, new)


def _service(**spec: Any) -> Spoil:
    return lambda good: good.one("Service")["spec"].update(spec)


def _rule(name: str, **rule: Any) -> Spoil:
    return lambda good: good.one("NetworkPolicy")["spec"][name].append(rule)


def _http(good: Manifests) -> None:
    good.add_setting("KBS__SERVER__INSECURE_HTTP", "true")


def _ingress(service: str, **annotations: str) -> Spoil:
    def spoil(good: Manifests) -> None:
        paths = [{"path": "/", "backend": {"service": {"name": service}}}]
        document = good.add("Ingress", api="networking.k8s.io/v1", spec={"rules": [{"http": {"paths": paths}}]})
        document["metadata"]["annotations"] = annotations

    return spoil


def _route(good: Manifests) -> None:
    good.add("TLSRoute", spec={"rules": [{"backendRefs": [{"name": "kbs-admin", "port": 8081}]}]})


ADMIN_PORT = {"name": "admin", "port": 8081, "targetPort": "admin"}

NETWORK_CASES: dict[str, tuple[str, Spoil]] = {
    "admin beside guests": ("ports-together", lambda good: good.one("Service")["spec"]["ports"].append(ADMIN_PORT)),
    "a port of nobody": (
        "port-unknown",
        lambda good: good.one("Service")["spec"]["ports"].append({"port": 1, "targetPort": 9999}),
    ),
    "admin on a node's port": (
        "admin-outside",
        lambda good: good.one("Service", "kbs-admin")["spec"].update(type="NodePort"),
    ),
    "metrics on an outer address": (
        "admin-outside",
        lambda good: good.one("Service", "kbs-metrics")["spec"].update(externalIPs=["192.0.2.1"]),
    ),
    "admin by a route": ("admin-outside", _route),
    "admin by an ingress": ("admin-outside", _ingress("kbs-admin")),
    "HTTP behind a load balancer": ("http-outside", _both(_http, _service(type="LoadBalancer"))),
    "HTTP on a node's port": ("http-outside", _both(_http, _service(type="NodePort"))),
    "HTTP behind an ingress": ("http-outside", _both(_http, _ingress("kbs"))),
    "TLS ends in the ingress": ("tls-ends-early", _ingress("kbs")),
    "passthrough not meant": ("tls-ends-early", _ingress("kbs", **{"haproxy.org/ssl-passthrough": "false"})),
    "no policies": ("no-network-policy", lambda good: _without(good, "NetworkPolicy")),
    "policies of another namespace": (
        "no-network-policy",
        lambda good: [each["metadata"].update(namespace="x") for each in good if each["kind"] == "NetworkPolicy"],
    ),
    "admin open by number": ("admin-open", _rule("ingress", ports=[{"port": 8081}])),
    "admin open by name": ("admin-open", _rule("ingress", ports=[{"port": "admin"}])),
    "admin in a range": ("admin-open", _rule("ingress", ports=[{"port": 8000, "endPort": 9000}])),
    "all ports open": ("admin-open", _rule("ingress")),
    "admin for every namespace": (
        "admin-open",
        _rule("ingress", ports=[{"port": 8081}], **{"from": [{"namespaceSelector": {}}]}),
    ),
    "admin for the world": (
        "admin-open",
        _rule("ingress", ports=[{"port": 8081}], **{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    ),
    "out to anywhere": ("egress-open", _rule("egress")),
}


def _without(good: Manifests, kind: str) -> None:
    good[:] = [each for each in good if each["kind"] != kind]


def _role(kind: str, **rule: Any) -> Spoil:
    return lambda good: good.add(kind, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}])


def _all_secrets(good: Manifests) -> None:
    _role("ClusterRole", resources=["secrets"])(good)
    good.add("ClusterRoleBinding", roleRef={"name": "new"})


def _hook(**members: Any) -> Spoil:
    rules = [{"resources": ["pods"], "operations": ["CREATE"]}]
    usual = {"name": "a.b.c", "failurePolicy": "Fail", "sideEffects": "None", "rules": rules}
    return lambda good: good.add("MutatingWebhookConfiguration", webhooks=[usual | members])


CLUSTER_CASES: dict[str, tuple[str, Spoil]] = {
    "every verb": ("rights-wildcard", _role("Role", verbs=["*"])),
    "every resource": ("rights-wildcard", _role("ClusterRole", resources=["*"])),
    "cluster-admin": (
        "rights-wildcard",
        lambda good: good.add("ClusterRoleBinding", roleRef={"name": "cluster-admin"}),
    ),
    "impersonate": ("rights-escalate", _role("ClusterRole", verbs=["impersonate"])),
    "all secrets": ("rights-all-secrets", _all_secrets),
    "webhook fails open": ("webhook-fails-open", _hook(failurePolicy="Ignore")),
    "webhook with side effects": ("webhook-side-effects", _hook(sideEffects="Some")),
    "webhook in plain text": ("webhook-plain", _hook(clientConfig={"url": "http://x"})),
    "namespace of any profile": ("namespace-not-restricted", lambda good: good.add("Namespace")),
    "no budget": (
        "no-budget",
        _both(lambda good: _without(good, "PodDisruptionBudget"), lambda good: good.spec.update(replicas=2)),
    ),
    "budget blocks": (
        "budget-blocks",
        lambda good: good.one("PodDisruptionBudget")["spec"].update(maxUnavailable=0),
    ),
}

CASES = POD_CASES | BROKER_CASES | NETWORK_CASES | CLUSTER_CASES


@pytest.mark.parametrize("name", CASES)
def test_what_is_spoilt_is_found(name: str, good: Manifests) -> None:
    rule, spoil = CASES[name]
    spoil(good)
    findings = lint(Rendered(tuple(good)))
    assert rule in {each.rule for each in findings}
    assert all(each.text and each.fix and each.place for each in findings)


UNSPOILT: dict[str, Spoil] = {
    "a webhook that only warns may be away": _hook(failurePolicy="Ignore", rules=[{"resources": ["deployments"]}]),
    "a webhook": _hook(),
    "a role": _role("Role"),
    "a ClusterRole for Secrets bound by namespace": _role("ClusterRole", resources=["secrets"]),
    "guests by a load balancer": _service(type="LoadBalancer"),
    "guests by an ingress that passes TLS": _ingress("kbs", **{"haproxy.org/ssl-passthrough": "true"}),
    "administration for a named namespace": _rule(
        "ingress",
        ports=[{"port": "admin"}],
        **{"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    ),
    "guests for the world": _rule("ingress", ports=[{"port": 8080}], **{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    "an empty Secret": lambda good: good.add("Secret"),
    "a restricted namespace": lambda good: good.add("Namespace")["metadata"].update(
        labels={"pod-security.kubernetes.io/enforce": "restricted"}
    ),
}


@pytest.mark.parametrize("name", UNSPOILT)
def test_what_is_fine_is_not_found(name: str, good: Manifests) -> None:
    UNSPOILT[name](good)
    assert found(good) == set()


@pytest.mark.parametrize("name", ["sample", "anybody is admin", "memory", "emptyDir", "secret among manifests"])
def test_dev_takes_what_does_not_last_or_is_insecure(name: str, good: Manifests) -> None:
    CASES[name][1](good)
    assert found(good, dev=True) == set()


@pytest.mark.parametrize(
    "name", ["HTTP behind a load balancer", "replicas on SQLite", "admin beside guests", "privileged"]
)
def test_dev_does_not_take_what_harms_others(name: str, good: Manifests) -> None:
    CASES[name][1](good)
    assert CASES[name][0] in found(good, dev=True, severity=Severity.ERROR)


def test_several_replicas_on_postgres_are_fine(good: Manifests) -> None:
    good.spec["replicas"] = 3
    good.add_setting("KBS__STORAGE__KIND", "postgres")
    good.add_setting("KBS__STORAGE__DSN_FILE", "/etc/kbs/postgres/dsn")
    assert found(good) == set()


def test_errors_come_first(good: Manifests) -> None:
    good.container["image"] = "kbs:1"
    good.pod["hostNetwork"] = True
    findings = lint(Rendered(tuple(good)))
    assert [each.severity for each in findings] == [Severity.ERROR, Severity.WARNING]


def test_a_list_is_opened_and_empty_documents_are_none() -> None:
    raw = b"---\n---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]\n"
    assert [each["kind"] for each in read(raw)] == ["Pod"]


@pytest.mark.parametrize("raw", [b"a: b", b"[1]", b"kind: Pod", b"kind: 1\napiVersion: v1", b"\xff", b"a: &a [*a]"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read(raw)


WORDS = st.sampled_from(
    [
        "spec",
        "template",
        "containers",
        "metadata",
        "labels",
        "name",
        "env",
        "ports",
        "selector",
        "args",
        "volumes",
        "rules",
        "ingress",
        "egress",
        "webhooks",
        "matchLabels",
        "matchExpressions",
        "serve",
        "kind",
        "data",
        "image",
    ]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=20,
)
KINDS = ["Pod", "Deployment", "CronJob", "Service", "NetworkPolicy", "ConfigMap", "Secret", "Role", "Ingress"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(WORDS, TREES)), max_size=4))
def test_no_shape_of_a_manifest_breaks_a_rule(documents: list[tuple[str, dict[str, Any]]]) -> None:
    objects = tuple({**members, "apiVersion": "v1", "kind": kind} for kind, members in documents)
    rendered = Rendered(objects)
    for rule in RULES:
        for finding in rule(rendered):
            assert finding.rule


ODD: tuple[Any, ...] = (None, 1, "x", [], [1], {}, [{"name": 1}], [[]])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for name, below in inside for each in _places(below, (*path, name)))]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_member_of_another_type_ends_the_lint(data: st.DataObject) -> None:
    """What is wrong about it is the API server's to say; everything else is still looked at."""
    good = copy.deepcopy(_good())
    broker = next(number for number, each in enumerate(good) if each["kind"] == "StatefulSet")
    number = data.draw(st.just(broker) | st.integers(0, len(good) - 1), label="object")
    *above, last = data.draw(
        st.sampled_from([each for each in _places(good[number])[1:] if each not in (("kind",), ("apiVersion",))]),
        label="place",
    )
    place: Any = good[number]
    for name in above:
        place = place[name]
    place[last] = data.draw(st.sampled_from(ODD), label="value")
    lint(Rendered(tuple(good)))


@pytest.mark.parametrize("spoil", [{"mountPath": None}, {}], ids=["null", "absent"])
def test_a_mount_without_a_path_ends_nothing(good: Manifests, spoil: dict[str, Any]) -> None:
    good.container["volumeMounts"] = [{"name": "data", **spoil}]
    assert found(good)


def test_a_namespace_that_is_a_list_ends_nothing(good: Manifests) -> None:
    good.one("ServiceAccount", good.pod["serviceAccountName"])["metadata"]["namespace"] = []
    assert "malformed" not in found(good)


def test_a_rule_that_cannot_look_is_an_error(good: Manifests) -> None:
    good.container["ports"][0]["name"] = []
    good.pod["hostNetwork"] = True
    assert {"malformed", RESTRICTED} <= found(good, severity=Severity.ERROR)
