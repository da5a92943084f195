"""A control plane that runs: Kubernetes' API server with its store and controllers, and nodes nowhere.

`Cluster` is one process; `SeparateCluster` is three, each of which a test may end and start again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.k8s.network import egress_configuration

T = TypeVar("T")

START_SECONDS: Final = 120.0  # a bound, not an expectation: 4 s on a machine with nothing else to do


class Part:
    """One process of the program `controlplane`; it ends when we do, for we hold its standard input."""

    def __init__(self, program: Path, name: str, folder: Path, *flags: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(program), name, str(folder), *flags]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            answered = selector.select(START_SECONDS)
        line = self._process.stdout.readline() if answered else b""
        if line != b"ready\n":
            self.kill()
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} did not become ready within {START_SECONDS:.0f} s:\n{tail}")

    def stop(self) -> None:
        """Close the pipe: it ends by itself."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the API server as somebody."""

    kubeconfig: Path
    server: str
    token: str

    @classmethod
    def read(cls, kubeconfig: Path) -> Access:
        """From a kubeconfig with one cluster and one user with a token."""
        written = yaml.safe_load(kubeconfig.read_text())
        return cls(kubeconfig, written["clusters"][0]["cluster"]["server"], written["users"][0]["user"]["token"])

    def api_client(self) -> Any:
        """A new `kubernetes.client.ApiClient`; close it."""
        connect: Any = config.new_client_from_config  # untyped there
        return connect(str(self.kubeconfig))


class Cluster:
    """The whole control plane in one process.

    client: a `kubernetes.client.ApiClient` of an administrator (group system:masters) with a token of this run's own.
    egress_socket: where the API server asks for connections to Services; `tests.k8s.kubelet.Node` answers there.
    The client and what is made of it are Any: the library's models may lack every field, so that a test in full types
    would be half `assert x is not None`. Bodies may be plain dicts as in YAML.
    """

    def __init__(self, program: Path, folder: Path, *flags: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        # The kernel bounds the length of such a path to 107 bytes; pytest's folders may be deeper.
        self._short = tempfile.TemporaryDirectory(prefix="k8s-")
        self.egress_socket = Path(self._short.name) / "egress"
        (folder / "egress.yaml").write_text(egress_configuration(self.egress_socket))
        self._start(program, (f"--egress-selector-config-file={folder / 'egress.yaml'}", *flags))
        self.admin = Access.read(folder / "kubeconfig")
        self.client = self.admin.api_client()

    def _start(self, program: Path, flags: tuple[str, ...]) -> None:
        self.parts = [Part(program, "all", self.folder, *flags)]
        self.parts[0].start()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.admin.kubeconfig

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.admin.server

    @property
    def ca_file(self) -> Path:
        """PEM: the API server's certificate and the CA that signed it."""
        return self.folder / "tls.crt"

    @property
    def core(self) -> Any:
        """Pods, Secrets, ConfigMaps, Services …"""
        return client.CoreV1Api(self.client)

    @property
    def apps(self) -> Any:
        """Deployments, StatefulSets, DaemonSets …"""
        return client.AppsV1Api(self.client)

    @property
    def custom(self) -> Any:
        """Objects of custom resource definitions."""
        return client.CustomObjectsApi(self.client)

    def read(self, path: str, **query: str) -> dict[str, Any]:
        """GET as the administrator: the object or list as plain JSON. Raises ApiException."""
        asked = self.client.param_serialize(
            "GET", path, query_params=list(query.items()), auth_settings=["BearerToken"]
        )
        answer = self.client.call_api(*asked)
        raw = answer.read()
        if answer.status != 200:
            raise ApiException(http_resp=answer, body=raw.decode())
        found: dict[str, Any] = json.loads(raw)
        return found

    def token(self, namespace: str, account: str, *, audiences: list[str] | None = None, pod: str | None = None) -> str:
        """A token of a ServiceAccount for ten minutes, bound to a Pod where one is named. The account must exist."""
        bound = None
        if pod is not None:
            uid = self.core.read_namespaced_pod(pod, namespace).metadata.uid
            bound = client.V1BoundObjectReference(api_version="v1", kind="Pod", name=pod, uid=uid)
        asked = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=audiences or [], bound_object_ref=bound, expiration_seconds=600)
        )
        return str(self.core.create_namespaced_service_account_token(account, namespace, asked).status.token)

    def as_account(self, namespace: str, account: str) -> Access:
        """How that ServiceAccount reaches the API server, with what its roles allow and no more."""
        written = yaml.safe_load(self.kubeconfig.read_text())
        token = self.token(namespace, account)
        written["users"][0]["user"] = {"token": token}
        written["contexts"][0]["context"]["namespace"] = namespace
        path = self.folder / f"{namespace}.{account}.kubeconfig"
        path.touch(0o600)
        path.write_text(yaml.safe_dump(written))
        return Access(path, self.server, token)

    def stop(self) -> None:
        """End everything, the last part first."""
        self.client.close()
        for part in reversed(self.parts):
            part.stop()
        self._short.cleanup()


class SeparateCluster(Cluster):
    """etcd, the API server and the controllers as processes of their own: `.etcd.kill()`, `.etcd.start()` …

    A part that is started again has the address, the credentials and the data that it had.
    """

    def _start(self, program: Path, flags: tuple[str, ...]) -> None:
        self.etcd = Part(program, "etcd", self.folder)
        self.apiserver = Part(program, "apiserver", self.folder, *flags)
        self.controllers = Part(program, "controllers", self.folder)
        self.parts = [self.etcd, self.apiserver, self.controllers]
        for part in self.parts:
            part.start()


def wait_until(seen: Callable[[], T | None], what: str, *, seconds: float = 30.0) -> T:
    """Ask again and again until the answer is true; what the API server refuses meanwhile is an answer that is not.

    what: names the thing in the error, as in "the Pod is Ready".
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = answer = seen()
        except ApiException as err:
            last = f"{err.status} {err.reason}: {err.body}"
        else:
            if answer:
                return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s until {what}; last seen: {last}")


def wait_until_refused(attempt: Callable[[], Any], status: int, text: str, *, seconds: float = 30.0) -> str:
    """Repeat a dry run until the API server refuses it with this status and these words; returns its whole message.

    Rules, policies and webhooks come into force some time after they were created.
    attempt: must ask for `dry_run="All"`, else it succeeds for good on its first call.
    """

    def refused() -> str | None:
        try:
            attempt()
        except ApiException as err:
            message = str(err.body)
            return message if err.status == status and text in message else None
        return None

    return wait_until(refused, f"a dry run is refused with {status} and {text!r}", seconds=seconds)


def set_running(cluster: Cluster, namespace: str, name: str, *, pod_ip: str = "10.0.0.1") -> None:
    """Make a Pod look Running and Ready, as a kubelet would report it: here is none."""
    pod = cluster.core.read_namespaced_pod(name, namespace)
    conditions = [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")]
    states = [
        {
            "name": container.name,
            "image": container.image,
            "imageID": container.image,
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": pod.metadata.creation_timestamp.isoformat()}},
        }
        for container in pod.spec.containers
    ]
    status = {
        "phase": "Running",
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "conditions": conditions,
        "containerStatuses": states,
    }
    cluster.core.patch_namespaced_pod_status(name, namespace, {"status": status})


def set_all_running(cluster: Cluster, namespace: str, selector: str) -> list[str]:
    """`set_running` for the Pods that a label selector finds; returns their names."""
    names = [pod.metadata.name for pod in cluster.core.list_namespaced_pod(namespace, label_selector=selector).items]
    for name in names:
        set_running(cluster, namespace, name)
    return names


@contextlib.contextmanager
def new_namespace(cluster: Cluster, name: str, labels: dict[str, str] | None = None) -> Iterator[str]:
    """A namespace with its default ServiceAccount; its deletion is asked for, not waited for."""
    cluster.core.create_namespace({"metadata": {"name": name, "labels": labels or {}}})
    wait_until(lambda: cluster.core.read_namespaced_service_account("default", name), f"{name} has its ServiceAccount")
    try:
        yield name
    finally:
        with contextlib.suppress(ApiException):  # a test may have deleted it
            cluster.core.delete_namespace(name)
