"""The broker's settings against where it runs: what is unsafe on a laptop's loopback, or alone, is worse in a cluster.

Settings are read as the broker itself reads them: its file from the ConfigMap, then the container's variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from kbs import config
from kbs.config import Settings
from kbs.errors import ConfigInvalid
from kbs.k8s.lint.model import Finding, Object, Rendered, error, warning
from kbs.k8s.lint.objects import (
    PodTemplate,
    brokers,
    is_serving,
    members,
    mount_of,
    namespace,
    place,
    serving,
    table,
    values,
    volume_of,
)

_LOOPBACK: Final = ("127.", "localhost:", "[::1]:")


@dataclass(frozen=True, slots=True)
class Configured:
    """A broker with its settings, or with what is wrong with them.

    Attributes:
        data: its data directory, a path in the container.
        settings: None when the file is not among the manifests, or is refused, which `problem` says.
    """

    pod: PodTemplate
    container: Mapping[str, Any]
    data: str
    settings: Settings | None
    problem: str | None

    def path(self, setting: object) -> str:
        """A path of the settings as one in the container."""
        return str(PurePosixPath(self.data) / str(setting))


def configured(rendered: Rendered) -> list[Configured]:
    """Every broker with its settings."""
    return [_configured(rendered, pod) for pod in brokers(rendered) if is_serving(serving(pod))]


def _configured(rendered: Rendered, pod: PodTemplate) -> Configured:
    container = serving(pod)
    words = [str(each) for each in (*values(container, "command"), *values(container, "args"))]
    given = {str(each.get("name")): each["value"] for each in members(container, "env") if "value" in each}
    environment = {name: str(value) for name, value in given.items()}
    data = _option(words, "--data") or "/var/lib/kbs"
    file = _option(words, "--config") or environment.get("KBS_CONFIG") or f"{data}/kbs.toml"
    text = _file(rendered, pod, container, file)
    if text is None:
        return Configured(pod, container, data, None, None)
    try:
        return Configured(pod, container, data, config.read(text, environment, name=file), None)
    except ConfigInvalid as err:
        return Configured(pod, container, data, None, str(err))


def _option(words: list[str], name: str) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def _file(rendered: Rendered, pod: PodTemplate, container: Mapping[str, Any], path: str) -> str | None:
    """The text of a file that a ConfigMap among the manifests puts there."""
    mount = mount_of(container, path)
    source = table(volume_of(pod, mount.get("name")), "configMap")
    key = str(mount["subPath"]) if mount.get("subPath") else PurePosixPath(path).name
    key = next((str(each.get("key")) for each in members(source, "items") if each.get("path") == key), key)
    for document in rendered.of("ConfigMap"):
        if (table(document, "metadata").get("name"), namespace(document)) == (source.get("name"), pod.namespace):
            text = table(document, "data").get(key)
            return text if isinstance(text, str) else None
    return None


def settings_are_good(rendered: Rendered) -> Iterator[Finding]:
    """They decode, listeners can be reached and are apart, nothing insecure is on outside dev."""
    for each in configured(rendered):
        where = each.pod.place
        if each.problem is not None:
            yield error("settings-invalid", where, each.problem, "docs/settings.md lists every setting")
        elif each.settings is None:
            fix = "give the ConfigMap too, or render it together with the Pods"
            yield error("settings-unknown", where, "its settings are not among these manifests", fix)
        else:
            yield from _listeners(where, each.settings)
            if not rendered.dev:
                yield from _insecure(where, each.settings)


def _listeners(where: str, settings: Settings) -> Iterator[Finding]:
    server = settings.server
    listed = {
        "server.listen": server.listen,
        "server.admin_listen": () if server.admin_listen is None else (server.admin_listen,),
        "server.metrics_listen": () if server.metrics_listen is None else (server.metrics_listen,),
    }
    for name, addresses in listed.items():
        if not addresses:
            fix = f'{name} = "0.0.0.0:PORT", with a Service of its own'
            yield error("ports-together", where, f"{name} is not set: its routes answer on the guests' port", fix)
        elif all(address.startswith(_LOOPBACK) for address in addresses):
            yield error("loopback", where, f"{name} is this Pod's loopback: no Service reaches it", "listen on 0.0.0.0")


def _insecure(where: str, settings: Settings) -> Iterator[Finding]:
    for switch in settings.insecure_switches():
        fix = "switch it off, or install the dev overlay (--dev)"
        yield error("insecure-switch", where, f"{switch} is on", fix)


def store_lasts(rendered: Rendered) -> Iterator[Finding]:
    """One replica on SQLite, on a volume that outlives the Pod; several on PostgreSQL."""
    for each in configured(rendered):
        if each.settings is None:
            continue
        shared = each.settings.storage.kind not in ("sqlite", "memory")
        most = _most_replicas(rendered, each.pod)
        if most > 1 and not shared:
            yield error(
                "replicas-without-postgres",
                each.pod.place,
                f'up to {most} replicas, each with a store of its own (storage.kind = "{each.settings.storage.kind}")',
                'storage.kind = "postgres" (the ha overlay), or one replica and no autoscaler',
            )
        if not shared and each.pod.owner["kind"] == "Deployment" and _rolls(each.pod.owner):
            yield error(
                "two-at-once",
                each.pod.place,
                "an update starts the new Pod while the old one still writes to the same store",
                "a StatefulSet, or strategy.type: Recreate",
            )
        if not rendered.dev:
            yield from _lasting(each, shared=shared)


def _rolls(deployment: Object) -> bool:
    return table(deployment, "spec", "strategy").get("type") != "Recreate"


def _most_replicas(rendered: Rendered, pod: PodTemplate) -> int:
    metadata = table(pod.owner, "metadata")
    found = [table(pod.owner, "spec").get("replicas", 1)]
    for scaler in rendered.of("HorizontalPodAutoscaler"):
        target = table(scaler, "spec", "scaleTargetRef")
        if (target.get("kind"), target.get("name")) == (pod.owner["kind"], metadata.get("name")):
            found.append(table(scaler, "spec").get("maxReplicas", 1))
    return max((each for each in found if isinstance(each, int)), default=1)


def _lasting(each: Configured, *, shared: bool) -> Iterator[Finding]:
    assert each.settings is not None
    wanted = {"audit.head": each.path(each.settings.audit.head)}
    if each.settings.storage.kind == "memory":
        fix = 'storage.kind = "sqlite" with a claim, or "postgres"'
        yield error("store-in-memory", each.pod.place, "storage.kind is memory: a restart loses everything", fix)
    elif not shared:
        wanted["storage.path"] = each.path(each.settings.storage.path)
        wanted["audit.log"] = each.path(each.settings.audit.log)
    for name, path in wanted.items():
        volume = volume_of(each.pod, mount_of(each.container, path).get("name"))
        if not volume:
            text = f"{name} ({path}) is on no volume"
        elif "emptyDir" in volume:
            text = f"{name} ({path}) is on the emptyDir {volume.get('name')}: it ends with the Pod"
        else:
            continue
        yield error("store-not-lasting", each.pod.place, text, "a volumeClaimTemplate mounted at the data directory")


def secrets_are_files(rendered: Rendered) -> Iterator[Finding]:
    """Keys come from Secrets, as files that exist; nothing secret is in variables, ConfigMaps or manifests."""
    for each in configured(rendered):
        for container in each.pod.containers:
            variables = members(container, "env")
            taken = any(table(one, "valueFrom", "secretKeyRef") for one in variables)
            if taken or any("secretRef" in one for one in members(container, "envFrom")):
                where = f"{each.pod.place} container {container.get('name')}"
                text = "a Secret is in variables, which children, crash reports and `kubectl describe` of copies show"
                yield error("secret-in-variable", where, text, "mount it as a file")
        if each.settings is not None:
            yield from _keys(each, each.settings)
    for secret in rendered.of("Secret"):
        if not rendered.dev and (secret.get("data") or secret.get("stringData")):
            text = "its bytes are in the manifests, hence wherever these are kept"
            yield error("secret-in-manifest", place(secret), text, "kbs k8s keys | kubectl create -f -")


def _keys(each: Configured, settings: Settings) -> Iterator[Finding]:
    keys = settings.keys
    wanted = {f"keys.{name}": getattr(keys, name) for name in ("sealing", "session", "token", "admin", "audit")}
    if not settings.server.insecure_http:
        wanted["server.tls_key"] = settings.server.tls_key
    for name, setting in wanted.items():
        path = each.path(setting)
        volume = volume_of(each.pod, mount_of(each.container, path).get("name"))
        if not {"secret", "csi", "projected"} & set(volume):
            text = f"{name} ({path}) is on no Secret"
            yield error("key-not-from-secret", each.pod.place, text, "mount the Secret of `kbs k8s keys` there")


def is_watched(rendered: Rendered) -> Iterator[Finding]:
    """Probes, time to end, spread and a disruption budget."""
    for each in configured(rendered):
        where = each.pod.place
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            found = table(each.container, probe)
            if not found:
                yield error("no-probe", where, f"has no {probe}", f"{probe}.httpGet on the metrics port")
            elif each.settings is not None:
                scheme = "HTTP" if each.settings.server.insecure_http else "HTTPS"
                if table(found, "httpGet").get("scheme", "HTTP") != scheme:
                    yield error("probe-scheme", where, f"{probe} does not speak {scheme}", f"httpGet.scheme: {scheme}")
        if _most_replicas(rendered, each.pod) > 1 and not members(each.pod.spec, "topologySpreadConstraints"):
            fix = "topologySpreadConstraints over kubernetes.io/hostname and zones"
            yield warning("no-spread", where, "all replicas may be on one node", fix)
