"""Plays the kubelet of one node: starts a Pod's containers from exactly what the API server says of the Pod.

A container is its image's entry point (a command of this checkout, see `Node.images`), with the Pod's command line,
environment and volumes, in namespaces of its own (`tests.k8s.sandbox`): the ports and paths are those of the manifest.
Services are reached under their names and addresses, from Pods and from the API server, and `connect` reaches them from
a test. What is not played (users and groups, limits, exec probes, restarts) is not pretended: an unknown kind of volume
or probe is an error, and a container that ends makes the test fail with its last words.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.k8s.cluster import Cluster, set_running, wait_until
from tests.k8s.container import ROOT, Container
from tests.k8s.network import EgressProxy, Relay
from tests.k8s.sandbox import Mount, Spec
from tests.k8s.volumes import Json, NotPlayed, Volumes, expand

_SERVICES: Final = ("10.96.0.1", "255.255.0.0")  # as controlplane/main.go tells the API server
_KUBERNETES: Final = ("10.96.0.1", 443)
_ACCOUNT_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_KEEP: Final = tuple(sorted({str(ROOT), sys.prefix, sys.base_prefix}))
READY_SECONDS: Final = 60.0  # a bound: a broker takes two seconds


class RunningPod:
    """A Pod whose containers run on this node."""

    def __init__(self, node: Node, pod: Json, ip: str, folder: Path) -> None:
        self.pod = pod
        self.ip = ip
        self.folder = folder
        self.containers: dict[str, Container] = {}
        self._node = node
        self._relays: list[Relay] = []
        self._served: set[tuple[str, int]] = set()
        self._hosts = folder / "hosts"
        self._volumes = Volumes(node.cluster, pod, ip, folder, node.claims)

    @property
    def namespace(self) -> str:
        """Of the Pod."""
        return str(self.pod["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Of the Pod."""
        return str(self.pod["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        """Of the Pod."""
        labels: dict[str, str] = self.pod["metadata"].get("labels", {})
        return labels

    def start(self) -> None:
        """Run the init containers to their end, then start the others.

        Raises:
            NotPlayed: for what this node does not know; nothing runs then.
        """
        spec = self.pod["spec"]
        volumes = self._volumes.make()
        self.write_hosts()
        for container in spec.get("initContainers", ()):
            if container.get("restartPolicy") == "Always":
                raise NotPlayed(f"{container['name']}: a sidecar among init containers")
            running = self._start(container, volumes)
            self._node.serve_services(self, running)
            while (status := running.status()) is None:  # as long as it takes: its own limits end it
                time.sleep(0.05)
            assert status == 0, f"{self.name}/{container['name']} failed:\n{running.words()}"
            running.kill()
        for container in spec["containers"]:
            self.containers[container["name"]] = self._start(container, volumes)
        self.serve_services()

    def _start(self, container: Json, volumes: Mapping[str, Path]) -> Container:
        folder = self.folder / container["name"]
        (folder / "scratch").mkdir(parents=True, exist_ok=True)
        inside = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOSTNAME": self.name, "HOME": "/"}
        inside |= {"KUBERNETES_SERVICE_HOST": _KUBERNETES[0], "KUBERNETES_SERVICE_PORT": str(_KUBERNETES[1])}
        inside |= self._volumes.environment(container)
        mounts: list[Mount] = [{"source": str(self._hosts), "target": "/etc/hosts", "read_only": True}]
        for mount in container.get("volumeMounts", ()):
            if not mount.keys() <= {"name", "mountPath", "readOnly", "recursiveReadOnly"}:
                raise NotPlayed(f"{container['name']}: a mount with {sorted(mount)}")
            source, target = volumes[mount["name"]], mount["mountPath"].replace("/var/run/", "/run/", 1)
            mounts.append({"source": str(source), "target": target, "read_only": mount.get("readOnly", False)})
        command = [
            *(container.get("command") or self._node.entry_point(container["image"])),
            *container.get("args", ()),
        ]
        spec: Spec = {
            "command": [expand(word, inside) for word in command],
            "environment": inside,
            "directory": container.get("workingDir", "/"),
            "mounts": sorted(mounts, key=lambda mount: mount["target"].count("/")),
            "keep": list(_KEEP),
            "scratch": str(folder / "scratch"),
            "read_only_root": container.get("securityContext", {}).get("readOnlyRootFilesystem", False),
            "networks": [_SERVICES],
        }
        return Container(spec, folder)

    def write_hosts(self) -> None:
        """The names of all Services; written into the same file, which containers have mounted."""
        lines = ["127.0.0.1 localhost", f"{self.ip} {self.name}"]
        for service in self._node.services():
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            names = [f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
            if namespace == self.namespace:
                names.append(name)
            lines.append(f"{service['spec']['clusterIP']} {' '.join(names)}")
        self._hosts.parent.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("\n".join(lines) + "\n")

    def serve_services(self) -> None:
        """Let the containers reach Services; once more, those that have come since.

        Containers of a Pod share one network in a cluster; here each has its own, and Pods of ours have one each.
        """
        for container in self.containers.values():
            self._node.serve_services(self, container)

    def relay(self, container: Container, address: str, port: int) -> None:
        """Hand what the container sends to that address of a Service to a Pod behind it."""
        own = {given["containerPort"] for one in self.pod["spec"]["containers"] for given in one.get("ports", ())}
        if (address, port) in self._served or port in own:  # a port that it binds on all addresses
            return
        listener = container.listen(address, port)
        self._relays.append(Relay(listener, lambda: self._node.connect_address(address, port)))
        self._served.add((address, port))

    def refresh(self) -> None:
        """Write changed Secrets and ConfigMaps into the volumes, as the kubelet does within a minute or two."""
        self._volumes.make()

    def connect(self, port: int | str) -> socket.socket:
        """A connection to a container port by number or name. Raises OSError, NotPlayed for a name nobody has."""
        for one in self.pod["spec"]["containers"]:
            for given in one.get("ports", ()):
                if port in (given["containerPort"], given.get("name")):
                    return self.containers[one["name"]].connect(given["containerPort"])
        if isinstance(port, int) and len(self.containers) == 1:
            return next(iter(self.containers.values())).connect(port)
        raise NotPlayed(f"{self.name} has no port {port}")

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Until every startup and readiness probe succeeds; then the API server hears so."""
        for one in self.pod["spec"]["containers"]:
            for kind in ("startupProbe", "readinessProbe"):
                if kind in one:
                    self._wait_for(one, one[kind], seconds)
            self._assert_running(one["name"])
        set_running(self._node.cluster, self.namespace, self.name, pod_ip=self.ip)

    def _wait_for(self, container: Json, probe: Json, seconds: float) -> None:
        last = "nothing"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._assert_running(container["name"])
            try:
                if self.probe(probe):
                    return
                last = "it says that it is not"
            except OSError as err:
                last = str(err)
            time.sleep(0.1)
        words = self.containers[container["name"]].words()
        raise AssertionError(f"{self.name}/{container['name']} is not ready: {last}\n{words}")

    def probe(self, probe: Json) -> bool:
        """One HTTP or TCP probe, as the kubelet makes them: certificates are not looked at. Raises OSError."""
        if "tcpSocket" in probe:
            self.connect(probe["tcpSocket"]["port"]).close()
            return True
        if "httpGet" not in probe:
            raise NotPlayed(f"probe {sorted(probe)}")
        asked = probe["httpGet"]
        connection = http.client.HTTPConnection("localhost")
        connected = self.connect(asked["port"])
        connected.settimeout(probe.get("timeoutSeconds", 1) + 4)
        if asked.get("scheme") == "HTTPS":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connected = context.wrap_socket(connected)
        with connected:
            connection.sock = connected
            connection.request("GET", asked.get("path", "/"))
            try:
                return 200 <= connection.getresponse().status < 400
            except http.client.HTTPException as err:
                raise OSError(str(err)) from err

    def _assert_running(self, name: str) -> None:
        container = self.containers[name]
        try:
            status = container.status()
        except OSError as err:
            raise AssertionError(f"{self.name}/{name} could not be started: {err}\n{container.words()}") from err
        assert status is None, f"{self.name}/{name} ended with {status}:\n{container.words()}"

    def stop(self) -> None:
        """As on deletion: SIGTERM, and SIGKILL after the Pod's own time."""
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        for container in self.containers.values():
            container.stop(grace)
        self._close()

    def kill(self) -> None:
        """As when the node loses its power."""
        for container in self.containers.values():
            container.kill()
        self._close()

    def _close(self) -> None:
        for relay in self._relays:
            relay.close()
        self._relays.clear()


class Node:
    """Where Pods run.

    images: the entry point of each image that is known, by its name without tag and digest.
    """

    def __init__(self, cluster: Cluster, folder: Path, images: Mapping[str, Sequence[str]]) -> None:
        self.cluster = cluster
        self.images = images
        self.claims = folder / "claims"
        self.pods: dict[tuple[str, str], RunningPod] = {}
        self._folder = folder
        self._addresses = (f"10.77.{number // 250}.{number % 250 + 2}" for number in itertools.count())
        self._turns = itertools.count()
        self._proxy = EgressProxy(cluster.egress_socket, self.connect_address)

    def entry_point(self, image: str) -> Sequence[str]:
        """Raises NotPlayed for an image that nobody has told us of."""
        name = image.partition("@")[0]
        head, slash, last = name.rpartition("/")
        name = head + slash + last.partition(":")[0]
        if name not in self.images:
            raise NotPlayed(f"image {image}")
        return self.images[name]

    def run(self, namespace: str, selector: str = "", *, wait: bool = True) -> list[RunningPod]:
        """Start all Pods that a label selector finds and that do not run yet, and wait until they are ready."""
        listed = self.cluster.read(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
        started = [self._start(pod) for pod in listed if (namespace, pod["metadata"]["name"]) not in self.pods]
        for pod in started if wait else ():
            pod.wait_ready()
        return started

    def _start(self, pod: Json) -> RunningPod:
        metadata = pod["metadata"]
        running = RunningPod(self, pod, next(self._addresses), self._folder / metadata["uid"])
        self.pods[metadata["namespace"], metadata["name"]] = running
        running.start()
        return running

    def run_workload(self, kind: str, namespace: str, name: str, *, wait: bool = True) -> list[RunningPod]:
        """`run` for the Pods of a Deployment, StatefulSet or DaemonSet, once all of them are there."""
        plural = f"{kind.lower()}s"
        path = f"/apis/apps/v1/namespaces/{namespace}/{plural}/{name}"
        spec = self.cluster.read(path)["spec"]
        selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())

        def all_there() -> bool:
            pods = self.cluster.read(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
            return len(pods) >= int(spec.get("replicas", 1))

        wait_until(all_there, f"{kind} {namespace}/{name} has its Pods")
        self.run(namespace, selector, wait=wait)
        wanted = spec["selector"]["matchLabels"].items()
        return [pod for (place, _), pod in self.pods.items() if place == namespace and wanted <= pod.labels.items()]

    def forget_deleted(self) -> None:
        """Stop the Pods that the API server no longer has."""
        for (namespace, name), running in list(self.pods.items()):
            pods = self.cluster.read(f"/api/v1/namespaces/{namespace}/pods")["items"]
            if running.pod["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in pods}:
                running.stop()
                del self.pods[namespace, name]

    def services(self) -> list[Json]:
        """All Services that have an address."""
        listed: list[Json] = self.cluster.read("/api/v1/services")["items"]
        return [service for service in listed if service["spec"].get("clusterIP", "None") != "None"]

    def serve_services(self, pod: RunningPod, container: Container) -> None:
        """Let one container reach every Service."""
        addresses = {_KUBERNETES}
        for service in self.services():
            addresses |= {(service["spec"]["clusterIP"], given["port"]) for given in service["spec"].get("ports", ())}
        for address, port in sorted(addresses):
            with contextlib.suppress(ConnectionError):
                pod.relay(container, address, port)

    def refresh(self) -> None:
        """Bring all Pods up to date with the API server: changed Secrets and ConfigMaps, new Services."""
        for pod in self.pods.values():
            pod.refresh()
            pod.write_hosts()
            pod.serve_services()

    def connect_address(self, host: str, port: int) -> socket.socket:
        """A connection to a Service by its address, as kube-proxy makes it: to its Pods in turn. Raises OSError."""
        if (host, port) == _KUBERNETES:
            server = urlsplit(self.cluster.server)
            opened = socket.create_connection((server.hostname, server.port), timeout=10)
            opened.settimeout(None)  # a watch may say nothing for long
            return opened
        for service in self.services():
            if service["spec"]["clusterIP"] == host:
                return self._connect_service(service, port)
        raise OSError(f"no Service has the address {host}")

    def connect(self, namespace: str, service: str, port: int) -> socket.socket:
        """A connection to a Service, by its name and its port. Raises OSError."""
        return self._connect_service(self.cluster.read(f"/api/v1/namespaces/{namespace}/services/{service}"), port)

    def forward(self, namespace: str, service: str, port: int) -> int:
        """A port of 127.0.0.1 that leads to a Service until the end of the test, as `kubectl port-forward`."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        given: int = listener.getsockname()[1]
        Relay(listener, lambda: self.connect(namespace, service, port))
        return given

    def _connect_service(self, service: Json, port: int) -> socket.socket:
        spec, namespace = service["spec"], service["metadata"]["namespace"]
        wanted = spec.get("selector", {}).items()
        target = next((given.get("targetPort", port) for given in spec["ports"] if given["port"] == port), None)
        if target is None:
            raise OSError(f"Service {service['metadata']['name']} has no port {port}")
        behind = [pod for (place, _), pod in self.pods.items() if place == namespace and wanted <= pod.labels.items()]
        if not behind:
            raise OSError(f"no Pod is behind Service {service['metadata']['name']}")
        turn = next(self._turns)
        for number in range(len(behind)):
            with contextlib.suppress(OSError):
                return behind[(turn + number) % len(behind)].connect(target)
        raise OSError(f"no Pod behind Service {service['metadata']['name']} answers")

    def kill_pods(self) -> None:
        """End all Pods without a word, as when the node loses its power; they may be started anew."""
        for pod in self.pods.values():
            pod.kill()
        self.pods.clear()

    def stop(self) -> None:
        """End everything at once."""
        self._proxy.close()
        self.kill_pods()
