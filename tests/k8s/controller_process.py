"""`kbs k8s controller` as a process, with the rights of a ServiceAccount; and a broker for it to keep."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml

from kbs.k8s.api import OURS, SECRETS, ApiKind, ApiNotFound
from kbs.k8s.connection import Connection, connect
from kbs.k8s.model import API_VERSION
from tests.fakes.running_broker import KBS, ROOT, RunningBroker, free_port
from tests.k8s.cluster import Cluster, wait_until

RIGHTS = ROOT / "k8s/controller/rbac.yaml"
ACCOUNT = "kbs-controller"
REF = {"name": "broker"}


class ControllerProcess:
    """One controller. Ends with `stop` (SIGTERM) or `kill`."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path, *more: str, everywhere: bool = False) -> None:
        self.port = free_port()
        self.log = folder / f"controller-{self.port}.log"
        listen = f"127.0.0.1:{self.port}"
        place = ["--all-namespaces", "--lease-namespace"] if everywhere else ["--namespace"]
        where = [*place, namespace, "--kubeconfig", str(kubeconfig), "--metrics-listen", listen]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*KBS, "k8s", "controller", *where, *more],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def get(self, path: str) -> httpx.Response | None:
        """From its port for probes; None while nobody answers."""
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10, trust_env=False)
        except httpx.TransportError:
            return None

    def troubles(self) -> dict[str, str]:
        """What it says does not work."""
        answer = self.get("/readyz")
        found: dict[str, str] = {} if answer is None else answer.json()["troubles"]
        return found

    def leads(self) -> bool:
        """Whether it says that it acts."""
        answer = self.get("/metrics")
        return answer is not None and "kbs_controller_leader 1.0" in answer.text

    def kill(self) -> None:
        """As a machine that loses power."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(40)


class Field:
    """A namespace with what a controller finds there."""

    def __init__(self, api: Connection, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Create one of ours, or change its spec."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        try:
            self.api.patch(OURS[kind], self.namespace, name, {"spec": spec})
        except ApiNotFound:
            self.api.create(OURS[kind], self.namespace, body)

    def secret(self, name: str, **data: bytes) -> None:
        """Create or change a Secret."""
        encoded = {key.replace("_", "-"): base64.b64encode(value).decode() for key, value in data.items()}
        try:
            self.api.patch(SECRETS, self.namespace, name, {"data": encoded})
        except ApiNotFound:
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
            self.api.create(SECRETS, self.namespace, body)

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str]:
        """Status and reason; empty while there is none."""
        try:
            found = self.api.get(OURS[kind], self.namespace, name)
        except ApiNotFound:
            return "", ""
        for each in found.get("status", {}).get("conditions", ()):
            if each["type"] == type_:
                return each["status"], each["reason"]
        return "", ""

    def until(self, kind: str, name: str, reason: str, *, seconds: float = 60) -> None:
        """Wait for the reason of Ready."""

        def seen() -> bool:
            return self.condition(kind, name)[1] == reason

        try:
            wait_until(seen, f"{kind} {name} is {reason}", seconds=seconds)
        except AssertionError as err:
            raise AssertionError(f"{err}; it is {self.condition(kind, name)}") from None

    def until_gone(self, kind: str, name: str) -> None:
        """Wait for the end of a deletion."""
        wait_until(lambda: not self.exists(kind, name), f"{kind} {name} is gone", seconds=60)

    def exists(self, kind: str, name: str) -> bool:
        """Whether the API server has it."""
        try:
            self.api.get(OURS[kind], self.namespace, name)
        except ApiNotFound:
            return False
        return True

    def key_broker(self, broker: RunningBroker, name: str = "broker") -> None:
        """A KeyBroker with its Secret and CA."""
        self.secret("admin", token=broker.admin_token.encode(), ca=broker.ca.read_bytes())
        spec = {
            "url": broker.url,
            "adminTokenSecretRef": {"name": "admin", "key": "token"},
            "caBundle": {"secretRef": {"name": "admin", "key": "ca"}},
        }
        self.apply("KeyBroker", name, spec)


def rights(*without: tuple[str, str]) -> list[dict[str, Any]]:
    """The shipped rights as objects, without these, each a resource and a verb."""
    found: list[dict[str, Any]] = list(yaml.safe_load_all(RIGHTS.read_text()))
    removed = set()
    for role in (each for each in found if each["kind"] == "Role"):
        rules = []
        for rule in role["rules"]:
            for resource in rule["resources"]:
                gone = {verb for verb in rule["verbs"] if (resource, verb) in without}
                removed |= {(resource, verb) for verb in gone}
                rules.append({**rule, "resources": [resource], "verbs": sorted(set(rule["verbs"]) - gone)})
        role["rules"] = [rule for rule in rules if rule["verbs"]]
    assert removed == set(without), "what is not granted cannot be taken away"
    return found


def grant(cluster: Cluster, namespace: str, objects: Iterable[dict[str, Any]]) -> Path:
    """Make account, roles and bindings in a namespace; the account's kubeconfig."""
    api = connect(cluster.kubeconfig, user_agent="test")
    for each in objects:
        group, _, version = each["apiVersion"].rpartition("/")
        made = dict(each)
        if "subjects" in each:
            made["subjects"] = [{**subject, "namespace": namespace} for subject in each["subjects"]]
        api.create(ApiKind(group, version, f"{each['kind'].lower()}s"), namespace, made)
    api.close()
    return cluster.as_account(namespace, ACCOUNT).kubeconfig
