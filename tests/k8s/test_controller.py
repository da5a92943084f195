"""The controller as users run it, on a real API server, with the shipped rights and a real broker."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kbs.client.admin import AdminClient
from kbs.client.errors import ClientError
from kbs.client.init_data import InitDataClient
from kbs.initdata import annotation
from kbs.k8s.api import CONFIG_MAPS, EVENTS, LEASES, OURS, SECRETS, ApiError
from kbs.k8s.connection import Connection, connect
from kbs.k8s.model import FINALIZER
from tests.fakes.running_broker import ROOT, RunningBroker
from tests.k8s.certificates import Authority
from tests.k8s.cluster import Cluster, SeparateCluster, wait_until
from tests.k8s.conftest import CRDS, Command
from tests.k8s.controller_process import REF, ControllerProcess, Field, grant, rights

Start = Callable[..., ControllerProcess]
SECRET = b"the-bytes-that-nobody-but-the-broker-may-see"
POLICY = (ROOT / "policies/resource/sample-demo.rego").read_text()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    running = RunningBroker(tmp_path_factory.mktemp("broker") / "data", workers=1)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def api(cluster: Cluster, installed_crds: list[str]) -> Iterator[Connection]:
    assert installed_crds
    made = connect(cluster.kubeconfig, user_agent="test")
    yield made
    made.close()


@pytest.fixture
def field(api: Connection, namespace: str) -> Field:
    return Field(api, namespace)


@pytest.fixture
def start(cluster: Cluster, field: Field, tmp_path: Path) -> Iterator[Start]:
    """Starts controllers with the shipped rights; what they leave held is let go."""
    with ExitStack() as stack:
        made: list[Path] = []

        def run(*more: str) -> ControllerProcess:
            if not made:
                made.append(grant(cluster, field.namespace, rights()))
            process = ControllerProcess(made[0], field.namespace, tmp_path, *more)
            stack.callback(process.stop)
            return process

        stack.callback(_let_go, field)
        yield run


def _let_go(field: Field) -> None:
    for kind in OURS.values():
        for raw in field.api.list(kind, field.namespace).items:
            if raw["metadata"].get("finalizers"):
                field.api.patch(kind, field.namespace, raw["metadata"]["name"], {"metadata": {"finalizers": None}})


def _served(broker: RunningBroker, path: str) -> bytes | None:
    try:
        with broker.guest() as guest:
            return guest.get_resource(path)
    except ClientError:
        return None


def test_from_nothing_to_nothing(broker: RunningBroker, field: Field, start: Start) -> None:
    """All kinds once: made, changed and deleted; a guest gets what the Secret says."""
    controller = start()
    team = f"team-{field.namespace}"
    field.key_broker(broker)
    field.until("KeyBroker", "broker", "Answered")
    status = field.api.get(OURS["KeyBroker"], field.namespace, "broker")["status"]
    assert "sample" in status["tees"]
    assert field.condition("KeyBroker", "broker", "Secure") == ("False", "InsecureSettings")

    field.apply(
        "BrokerPolicy", "p", {"brokerRef": REF, "kind": "resource", "policyId": "resource-policy", "rego": POLICY}
    )
    field.secret("db", password=SECRET)
    spec = {"brokerRef": REF, "path": f"{team}/db/password", "secretRef": {"name": "db", "key": "password"}}
    field.apply("BrokerResource", "r", spec)
    good = {"svn": ["1"], "launch_digest": ["abcde"], "major_version": 1, "minimum_minor_version": 4}
    values = {"brokerRef": REF, "unsigned": True, "values": good, "deletionPolicy": "Delete"}
    field.apply("ReferenceValueSet", "v", values)
    field.until("BrokerPolicy", "p", "Active")
    field.until("BrokerResource", "r", "Synced")
    field.until("ReferenceValueSet", "v", "Accepted")
    assert _served(broker, f"{team}/db/password") == SECRET

    field.secret("db", password=SECRET + b"2")
    wait_until(lambda: _served(broker, f"{team}/db/password") == SECRET + b"2", "the changed Secret is served")
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        assert admin.resource_versions(f"{team}/db/password").version == 2
        for kind, name in (("BrokerResource", "r"), ("ReferenceValueSet", "v"), ("BrokerPolicy", "p")):
            field.api.delete(OURS[kind], field.namespace, name)
            field.until_gone(kind, name)
        assert not admin.resources(f"{team}/")
        assert not [each.name for each in admin.reference_values() if each.valid and each.name in good]
    field.api.delete(OURS["KeyBroker"], field.namespace, "broker")
    field.until_gone("KeyBroker", "broker")
    said = {(each["involvedObject"]["kind"], each["reason"]) for each in _events(field)}
    assert {("BrokerResource", "Written"), ("BrokerResource", "Removed"), ("BrokerPolicy", "Activated")} <= said
    assert controller.troubles() == {}
    assert controller.stop() == 0
    lease = field.api.get(LEASES, field.namespace, "kbs-controller")
    assert lease["spec"]["holderIdentity"] == "", "given back"


def test_profiles(broker: RunningBroker, field: Field, start: Start) -> None:
    start()
    field.key_broker(broker)
    ca = {"metadata": {"name": "ca"}, "data": {"ca.crt": broker.ca.read_text()}}
    field.api.create(CONFIG_MAPS, field.namespace, {"apiVersion": "v1", "kind": "ConfigMap", **ca})
    spec: dict[str, Any] = {
        "runtimeClassName": "kata-qemu-snp",
        "brokerRef": REF,
        "kbsUrl": broker.url,
        "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}},
        "initData": {"yaml": "labels: {workload: one}"},
        "keepOld": "2s",
    }
    field.apply("WorkloadProfile", "w", spec)
    field.until("WorkloadProfile", "w", "Registered")
    first = field.api.get(OURS["WorkloadProfile"], field.namespace, "w")["status"]
    document = annotation.decode(first["initDataAnnotation"])
    assert hashlib.sha256(document).hexdigest() == first["initDataDigest"]
    assert first["kbsUrl"] == broker.url
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        register = InitDataClient(admin)
        mine = f"WorkloadProfile {field.namespace}/w"[:128]

        def digests() -> set[Any]:
            return {each["digest"] for each in register.all() if each["owner"] == mine}

        assert digests() == {first["initDataDigest"]}
        field.apply("WorkloadProfile", "w", {**spec, "initData": {"yaml": "labels: {workload: two}"}})
        wait_until(lambda: first["initDataDigest"] not in digests() and len(digests()) == 1, "the old one went")
        field.api.delete(OURS["WorkloadProfile"], field.namespace, "w")
        field.until_gone("WorkloadProfile", "w")
        assert digests() == set()


def test_a_policy_that_does_not_compile(broker: RunningBroker, field: Field, start: Start) -> None:
    start()
    field.key_broker(broker)
    spec = {"brokerRef": REF, "kind": "resource", "policyId": "resource-policy", "rego": POLICY}
    field.apply("BrokerPolicy", "p", spec)
    field.until("BrokerPolicy", "p", "Active")
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        before = admin.policy("resource", "resource-policy").digest
        field.apply("BrokerPolicy", "p", {**spec, "rego": "package policy\nthis is no rego"})
        field.until("BrokerPolicy", "p", "Refused")
        assert admin.policy("resource", "resource-policy").digest == before
    assert field.condition("BrokerPolicy", "p", "Compiled") == ("False", "Refused")
    found = field.api.get(OURS["BrokerPolicy"], field.namespace, "p")["status"]["conditions"]
    assert "stays in force" in next(each["message"] for each in found if each["type"] == "Ready")
    field.apply("BrokerPolicy", "p", spec)
    field.until("BrokerPolicy", "p", "Active")


def test_tokens_and_authorities(broker: RunningBroker, field: Field, start: Start, authority: Authority) -> None:
    """Wrong ones are a condition; right ones work without a restart."""
    start()
    field.key_broker(broker)
    field.until("KeyBroker", "broker", "Answered")
    field.secret("admin", token=b"not-the-token")
    field.until("KeyBroker", "broker", "TokenRefused")
    field.secret("admin", token=b"\xff\xfe")
    field.until("KeyBroker", "broker", "Misconfigured")
    field.secret("admin", token=broker.admin_token.encode(), ca=b"no certificates")
    field.until("KeyBroker", "broker", "Misconfigured")
    field.secret("admin", ca=authority.pem)
    field.until("KeyBroker", "broker", "BrokerUnreachable")
    field.secret("admin", ca=broker.ca.read_bytes())
    field.until("KeyBroker", "broker", "Answered")
    field.apply("KeyBroker", "broker", {"url": "https://localhost:9"})
    field.until("KeyBroker", "broker", "BrokerUnreachable")
    field.api.delete(SECRETS, field.namespace, "admin")
    field.until("KeyBroker", "broker", "SecretMissing")
    field.key_broker(broker)
    field.until("KeyBroker", "broker", "Answered")


def test_nothing_on_the_api_server_holds_a_secret(broker: RunningBroker, field: Field, start: Start) -> None:
    controller = start()
    field.key_broker(broker)
    field.secret("db", a=SECRET, b=SECRET * 3)
    team = f"hush-{field.namespace}"
    field.apply("BrokerResource", "r", {"brokerRef": REF, "path": f"{team}/db", "secretRef": {"name": "db"}})
    field.until("BrokerResource", "r", "Synced")
    field.secret("db", b=SECRET * 4)
    field.apply("BrokerResource", "bad", {"brokerRef": REF, "path": f"{team}/db", "secretRef": {"name": "db"}})
    field.until("BrokerResource", "bad", "PathTaken")
    field.secret("db", **{".unfit": SECRET})
    field.until("BrokerResource", "r", "KeyNotAllowed")
    written = json.dumps(
        [*_events(field), *(each for kind in OURS.values() for each in field.api.list(kind, field.namespace).items)]
    )
    written += json.dumps(field.api.get(LEASES, field.namespace, "kbs-controller"))
    written += controller.log.read_text()
    answer = controller.get("/metrics")
    assert answer is not None
    written += answer.text
    assert "PathTaken" in written
    for secret in (SECRET, SECRET * 3, SECRET * 4, broker.admin_token.encode()):
        assert secret.decode() not in written
        assert base64.b64encode(secret).decode().rstrip("=") not in written
        assert hashlib.sha256(secret).hexdigest() not in written


def test_two_controllers(broker: RunningBroker, field: Field, start: Start) -> None:
    """One acts; when it is killed, the other one does. Nothing is written twice."""
    first = start()
    wait_until(first.leads, "the first one acts")
    second = start()
    field.key_broker(broker)
    field.secret("db", pw=SECRET)
    path = f"two-{field.namespace}/db/pw"
    field.apply("BrokerResource", "r", {"brokerRef": REF, "path": path, "secretRef": {"name": "db", "key": "pw"}})
    field.until("BrokerResource", "r", "Synced")
    assert not second.leads()
    first.kill()
    wait_until(second.leads, "the second one acts", seconds=60)
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        assert admin.resource_versions(path).version == 1
        field.secret("db", pw=SECRET + b"!")
        wait_until(lambda: admin.resource_versions(path).version == 2, "the second one writes")
    assert field.api.get(LEASES, field.namespace, "kbs-controller")["spec"]["leaseTransitions"] == 1


def test_a_storm_of_conflicts(broker: RunningBroker, field: Field, start: Start) -> None:
    """Somebody changes the object all the time; it is written once all the same."""
    start()
    field.key_broker(broker)
    field.secret("db", pw=SECRET)
    path = f"storm-{field.namespace}/db/pw"
    field.apply("BrokerResource", "r", {"brokerRef": REF, "path": path, "secretRef": {"name": "db", "key": "pw"}})
    for number in range(300):
        body = {"metadata": {"annotations": {"storm": str(number)}}}
        field.api.patch(OURS["BrokerResource"], field.namespace, "r", body)
    field.until("BrokerResource", "r", "Synced")
    with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
        assert admin.resource_versions(path).version == 1
    found = field.api.get(OURS["BrokerResource"], field.namespace, "r")
    assert found["metadata"]["annotations"] == {"storm": "299"}
    assert found["metadata"]["finalizers"] == [FINALIZER]


def _events(field: Field) -> list[Any]:
    return list(field.api.list(EVENTS, field.namespace).items)


def test_the_api_server_restarts(
    separate_cluster: SeparateCluster, kubectl: Command, broker: RunningBroker, tmp_path: Path
) -> None:
    """And so does etcd; the controller goes on where it was."""
    cluster = separate_cluster
    api = connect(cluster.kubeconfig, user_agent="test")
    kubectl("apply", "--server-side", "-k", CRDS, kubeconfig=cluster.kubeconfig)
    wait_until(lambda: all(_is_served(api, kind) for kind in OURS), "the kinds are served")
    field = Field(api, "default")
    kubeconfig = grant(cluster, "default", rights())
    controller = ControllerProcess(kubeconfig, "default", tmp_path)
    try:
        field.key_broker(broker)
        field.secret("db", pw=SECRET)
        path = "restart/db/pw"
        field.apply("BrokerResource", "r", {"brokerRef": REF, "path": path, "secretRef": {"name": "db", "key": "pw"}})
        field.until("BrokerResource", "r", "Synced")
        cluster.apiserver.kill()
        wait_until(lambda: controller.troubles() or None, "it says that something is wrong")
        cluster.etcd.kill()
        cluster.etcd.start()
        cluster.apiserver.start()
        field.secret("db", pw=SECRET + b"!")
        with AdminClient(broker.url, token=broker.admin_token, ca_file=broker.ca) as admin:
            wait_until(lambda: admin.resource_versions(path).version == 2, "the change is written", seconds=90)
        wait_until(lambda: controller.troubles() == {}, "all is well again", seconds=90)
    finally:
        assert controller.stop() == 0
        api.close()


def _is_served(api: Connection, kind: str) -> bool:
    try:
        api.list(OURS[kind], "default")
    except ApiError:
        return False
    return True
