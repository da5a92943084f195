"""The restricted profile, and what we ask of Pods beyond it.

Source: Kubernetes, Pod Security Standards, profiles Baseline and Restricted; every control of both is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kbs.k8s.lint.model import Finding, Rendered, error, warning
from kbs.k8s.lint.objects import PodTemplate, is_serving, members, pods, table, values

_VOLUMES: Final = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_SELINUX: Final = frozenset({None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_RUNTIME: Final = frozenset({"RuntimeDefault", "Localhost"})
_HANDLERS: Final = ("livenessProbe", "readinessProbe", "startupProbe")


def restricted(rendered: Rendered) -> Iterator[Finding]:
    """Every Pod against the restricted profile."""
    for pod in pods(rendered):
        yield from _pod(pod)
        for container in pod.containers:
            yield from _container(pod, container)


def _refused(pod: PodTemplate, where: str, text: str, fix: str) -> Finding:
    return error("restricted-profile", f"{pod.place}{where}", text, fix)


def _pod(pod: PodTemplate) -> Iterator[Finding]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield _refused(pod, "", f"{name} is on", f"remove {name}")
    for volume in members(pod.spec, "volumes"):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            named = ", ".join(sorted(kinds - _VOLUMES))
            yield _refused(pod, "", f"volume {volume.get('name')} is a {named}", "use a claim, Secret or ConfigMap")
    for sysctl in members(pod.spec, "securityContext", "sysctls"):
        if sysctl.get("name") not in _SYSCTLS:
            yield _refused(pod, "", f"sysctl {sysctl.get('name')} is not a safe one", "remove it")
    if pod.spec.get("hostUsers") is True:
        yield warning("host-users", pod.place, "hostUsers is asked for", "remove hostUsers: true")


def _container(pod: PodTemplate, container: Mapping[str, Any]) -> Iterator[Finding]:
    where = f" container {container.get('name')}"
    shared, own = table(pod.spec, "securityContext"), table(container, "securityContext")

    def either(name: str) -> Any:
        return own[name] if name in own else shared.get(name)

    if own.get("privileged"):
        yield _refused(pod, where, "privileged", "remove privileged")
    if own.get("allowPrivilegeEscalation") is not False:
        yield _refused(pod, where, "may gain privileges", "securityContext.allowPrivilegeEscalation: false")
    if either("runAsNonRoot") is not True:
        yield _refused(pod, where, "may run as root", "securityContext.runAsNonRoot: true")
    if either("runAsUser") == 0:
        yield _refused(pod, where, "runs as user 0", "securityContext.runAsUser: 65532")
    if table({"c": either("seccompProfile")}, "c").get("type") not in _RUNTIME:
        yield _refused(pod, where, "without a seccomp profile", "securityContext.seccompProfile.type: RuntimeDefault")
    if "ALL" not in values(own, "capabilities", "drop"):
        yield _refused(pod, where, "keeps capabilities", "securityContext.capabilities.drop: [ALL]")
    if set(map(str, values(own, "capabilities", "add"))) - {"NET_BIND_SERVICE"}:
        yield _refused(pod, where, "adds capabilities", "remove capabilities.add")
    if own.get("procMount") not in (None, "Default"):
        yield _refused(pod, where, "unmasks /proc", "remove procMount")
    for context in (shared, own):
        yield from _labels(pod, where, context)
    if any(port.get("hostPort") for port in members(container, "ports")):
        yield _refused(pod, where, "takes a port of the node", "remove hostPort; use a Service")
    if any(_host(container, name) for name in _HANDLERS) or any(
        _host(table(container, "lifecycle"), name) for name in ("postStart", "preStop")
    ):
        yield _refused(pod, where, "a probe or hook names a host", "remove host: it then asks the Pod itself")


def _labels(pod: PodTemplate, where: str, context: Mapping[str, Any]) -> Iterator[Finding]:
    if table(context, "windowsOptions").get("hostProcess"):
        yield _refused(pod, where, "is a HostProcess container", "remove windowsOptions.hostProcess")
    linux = table(context, "seLinuxOptions")
    if linux.get("type") not in _SELINUX or linux.get("user") or linux.get("role"):
        yield _refused(pod, where, "sets SELinux options", "remove seLinuxOptions")
    if table(context, "appArmorProfile").get("type", "RuntimeDefault") not in _RUNTIME:
        yield _refused(pod, where, "is not confined by AppArmor", "remove appArmorProfile")


def _host(document: Mapping[str, Any], name: str) -> bool:
    return any(table(document, name, kind).get("host") for kind in ("httpGet", "tcpSocket"))


def hardened(rendered: Rendered) -> Iterator[Finding]:
    """Beyond the profile: a root file system that stays as it is, bounded memory, an image that stays the same."""
    for pod in pods(rendered):
        for container in pod.containers:
            place = f"{pod.place} container {container.get('name')}"
            if table(container, "securityContext").get("readOnlyRootFilesystem") is not True:
                fix = "securityContext.readOnlyRootFilesystem: true; mount an emptyDir at /tmp"
                yield error("writable-root", place, "can write to its root file system", fix)
            if "memory" not in table(container, "resources", "limits"):
                yield error("no-memory-limit", place, "may take all memory of its node", "set resources.limits.memory")
            yield from _image(place, str(container.get("image", "")))


def _image(place: str, image: str) -> Iterator[Finding]:
    if "@sha256:" in image:
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest"):
        yield error("image-moves", place, f"image {image!r} is a different one from day to day", "name a digest")
    else:
        yield warning("image-by-tag", place, f"image {image!r} is named by a tag", "name the digest of that release")


def tokens(rendered: Rendered) -> Iterator[Finding]:
    """The broker has no business at the API server: a token in its Pod is one to steal."""
    accounts = {
        (str(table(each, "metadata").get("namespace")), str(table(each, "metadata").get("name"))): each
        for each in rendered.of("ServiceAccount")
    }
    for pod in pods(rendered):
        if not any(is_serving(each) for each in pod.containers) and not pod.is_broker:
            continue
        mounted = pod.spec.get("automountServiceAccountToken")
        if mounted is None:
            owner = str(table(pod.owner, "metadata").get("namespace"))
            account = accounts.get((owner, str(pod.spec.get("serviceAccountName", "default"))), {})
            mounted = account.get("automountServiceAccountToken")
        if mounted is not False:
            fix = "automountServiceAccountToken: false in the Pod's spec"
            yield error("service-account-token", pod.place, "a token of the API server is in the broker's Pod", fix)
