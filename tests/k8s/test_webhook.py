"""The admission webhook on a real API server: what Pods come out as, and what becomes of them when it fails."""

from __future__ import annotations

import functools
import itertools
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from kubernetes.client.exceptions import ApiException

from kbs.initdata import annotation
from kbs.k8s.model import PROFILE_LABEL, WIRED_ANNOTATION
from tests.fakes.profiles import DIGEST, IMAGE, init_data, rendered
from tests.k8s.certificates import Authority, Leaf
from tests.k8s.cluster import Cluster, SeparateCluster, new_namespace, wait_until, wait_until_refused
from tests.k8s.conftest import CRDS, Command
from tests.k8s.webhooks import WebhookProcess, other_webhook, registrations, shipped

Json = Any
_numbers = itertools.count(1)
NAME = f"webhook-{os.getpid()}"
LABELS = {"kbs-test/webhook": NAME}
CLASS = f"kata-{os.getpid()}"


@dataclass(frozen=True)
class Installed:
    """A webhook that runs as its ServiceAccount, with the shipped rights."""

    process: WebhookProcess
    cluster: Cluster


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster,
    kubectl: Command,
    installed_crds: list[str],
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """Registered for namespaces with `LABELS`."""
    overhead = {"memory": "160Mi", "cpu": "250m"}
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": CLASS}, "handler": "kata",
               "overhead": {"podFixed": overhead}, "scheduling": {"nodeSelector": {"kata": "yes"}}}  # fmt: skip
    kubectl("apply", "-f", "-", input=yaml.safe_dump(runtime))
    with new_namespace(cluster, NAME):
        kubectl("apply", "-n", NAME, "-f", "-", input=shipped("rbac.yaml", NAME))
        process = WebhookProcess(tmp_path_factory.mktemp("webhook"), authority, cluster.as_account(NAME, NAME))
        process.start()
        found = registrations(NAME, f"https://127.0.0.1:{process.port}", authority.pem, LABELS)
        kubectl("apply", "-f", "-", input=yaml.safe_dump_all(found))
        yield Installed(process, cluster)
        kubectl("delete", "--wait=false", "-f", "-", input=yaml.safe_dump_all([*found, runtime]))
        kubectl("delete", "clusterrole,clusterrolebinding", NAME)
        process.kill()


@pytest.fixture(scope="module")
def shop(installed: Installed, kubectl: Command) -> Iterator[str]:
    """A namespace with the profile `web`, whose Pods are wired."""
    with new_namespace(installed.cluster, f"shop-{os.getpid()}-{next(_numbers)}", LABELS) as name:
        kubectl("apply", "-f", "-", input=yaml.safe_dump(profile(name)))
        wait_until(lambda: "runtimeClassName" in dry_run(installed.cluster, name, pod())["spec"], "Pods are wired")
        yield name


def profile(namespace: str, name: str = "web", raw: bytes | None = None, **spec: Json) -> dict[str, Json]:
    return {
        "apiVersion": "kbs.confidential.dev/v1alpha1",
        "kind": "WorkloadProfile",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"runtimeClassName": CLASS, "rendered": rendered(raw), **spec},
    }


def pod(name: str = "app", *, label: str | None = "web", image: str = IMAGE, **spec: Json) -> dict[str, Json]:
    metadata = {"name": name, "labels": {PROFILE_LABEL: label, "app": name} if label else {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"automountServiceAccountToken": False, "containers": [{"name": "app", "image": image}], **spec},
    }


def ask(cluster: Cluster, method: str, path: str, body: Json = None) -> dict[str, Json]:
    """One request as the administrator. Raises ApiException."""
    answer = _pool(cluster).request(
        method,
        f"{cluster.server}{path}",
        json=body,
        headers={"Authorization": f"Bearer {cluster.admin.token}"},
        retries=False,
        timeout=30,
    )
    if answer.status >= 300:
        raise ApiException(http_resp=answer, body=answer.data.decode())
    found: dict[str, Json] = answer.json()
    return found


def dry_run(cluster: Cluster, namespace: str, body: dict[str, Json]) -> dict[str, Json]:
    """A Pod as it would be stored. Raises ApiException."""
    return ask(cluster, "POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)


@functools.cache
def _pool(cluster: Cluster) -> urllib3.PoolManager:
    return urllib3.PoolManager(ca_certs=str(cluster.ca_file), maxsize=8)


def refused(cluster: Cluster, namespace: str, body: dict[str, Json]) -> str:
    with pytest.raises(ApiException) as caught:
        dry_run(cluster, namespace, body)
    return str(json.loads(str(caught.value.body))["message"])


def assert_wired(found: dict[str, Json], raw: bytes | None = None, name: str = "web") -> None:
    annotations = found["metadata"]["annotations"]
    assert annotation.decode(annotations[annotation.KEY]) == (raw or init_data())
    assert annotations[WIRED_ANNOTATION] == f"{name}/1"
    spec = found["spec"]
    assert spec["runtimeClassName"] == CLASS
    # What the API server's own RuntimeClass admission does has to see our change.
    assert spec["overhead"] == {"memory": "160Mi", "cpu": "250m"}
    assert spec["nodeSelector"] == {"kata": "yes"}
    assert {each["imagePullPolicy"] for each in spec["containers"]} == {"Always"}


# --- workloads --------------------------------------------------------------------------------------------------------


def _workload(kind: str, prefix: str = "", **of_pod: Json) -> dict[str, Json]:
    name = prefix + kind.lower()
    template = pod(name, **of_pod)
    del template["apiVersion"], template["kind"], template["metadata"]["name"]
    spec: dict[str, Json] = {"template": template}
    if kind in ("Job", "CronJob"):
        template["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": {"app": name}}
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    group = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _pod_of(cluster: Cluster, namespace: str, kind: str) -> dict[str, Json]:
    def there() -> list[dict[str, Json]]:
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{kind.lower()}"
        items: list[dict[str, Json]] = ask(cluster, "GET", path)["items"]
        return items

    return wait_until(there, f"the {kind} has a Pod")[0]


def test_pods_of_workloads_come_out_wired(installed: Installed, shop: str, kubectl: Command) -> None:
    made = [_workload(kind) for kind in ("Deployment", "StatefulSet", "Job", "CronJob")]
    said = kubectl("apply", "-n", shop, "-f", "-", input=yaml.safe_dump_all(made))
    assert "Warning" not in said.stderr
    kubectl("create", "job", "once", "--from=cronjob/cronjob", "-n", shop)
    for each in made:
        assert_wired(_pod_of(installed.cluster, shop, each["kind"]))


def test_people_hear_of_it_when_they_apply(shop: str, kubectl: Command) -> None:
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
    made = yaml.safe_dump_all(
        [_workload(kind, "bad-", image=kind.lower()) for kind in kinds]
    )  # kubectl says nothing twice
    said = kubectl("create", "--dry-run=server", "-n", shop, "-f", "-", input=made, check=False).stderr
    assert said.count("Warning: Pods will be refused: [image-not-pinned]") == len(kinds)


def test_sealed_secrets_reach_the_pod(installed: Installed, shop: str, kubectl: Command) -> None:
    sealed = [{"secretName": "db", "env": "PASSWORD"}, {"secretName": "db", "mountPath": "/etc/db"}]
    kubectl("apply", "-f", "-", input=yaml.safe_dump(profile(shop, "sealed", sealedSecrets=sealed)))
    body = pod(label="sealed")

    def known() -> dict[str, Json]:
        return dry_run(installed.cluster, shop, body)

    container = wait_until(known, "the new profile is known")["spec"]["containers"][0]
    assert container["env"] == [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "PASSWORD"}}}]
    assert container["volumeMounts"] == [{"name": "kbs-sealed-db", "mountPath": "/etc/db", "readOnly": True}]


def test_the_profile_decides_from_then_on(installed: Installed, shop: str, kubectl: Command) -> None:
    other = init_data(label="two")
    for raw in (None, other):
        kubectl("apply", "-f", "-", input=yaml.safe_dump(profile(shop, "decides", raw=raw)))

    def changed() -> bool:
        value = dry_run(installed.cluster, shop, pod(label="decides"))["metadata"]["annotations"][annotation.KEY]
        return annotation.decode(value) == other

    wait_until(changed, "Pods get the new init data")
    kubectl("delete", "workloadprofile", "decides", "-n", shop)
    wait_until_refused(lambda: dry_run(installed.cluster, shop, pod(label="decides")), 403, "profile-unknown")


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_confidential_is_refused_with_all_reasons(shop: str, kubectl: Command) -> None:
    body = pod(image="nginx:1.27", hostNetwork=True, volumes=[{"name": "h", "hostPath": {"path": "/"}}])
    said = kubectl("apply", "-n", shop, "-f", "-", input=json.dumps(body), check=False).stderr
    for name in ("host-network", "image-not-pinned", "host-path"):
        assert f"- [{name}] spec." in said


def test_a_running_pod_stays_what_it_is(installed: Installed, shop: str, kubectl: Command) -> None:
    kubectl("apply", "-n", shop, "-f", "-", input=json.dumps(pod()))
    for words, name in (
        (("label", "pod", "app", f"{PROFILE_LABEL}-"), "label-changed"),
        (("annotate", "--overwrite", "pod", "app", f"{annotation.KEY}=x"), "wiring-changed"),
        (("set", "image", "pod/app", "app=nginx"), "image-not-pinned"),
        (("debug", "app", f"--image={IMAGE}", "--target=app"), "ephemeral-container"),
    ):
        said = kubectl(*words, "-n", shop, check=False)
        assert said.returncode == 1
        assert f"[{name}]" in said.stderr
    kubectl("annotate", "pod", "app", "-n", shop, "team=x")
    kubectl("set", "image", "pod/app", f"app=other@{DIGEST}", "-n", shop)
    kubectl("delete", "pod", "app", "-n", shop, "--grace-period=0", "--force")


def test_a_mutator_that_strips_the_annotation_is_caught(
    installed: Installed, shop: str, kubectl: Command, authority: Authority, tmp_path: Path
) -> None:
    def strip(found: dict[str, Json]) -> list[dict[str, Json]]:
        there = annotation.KEY in found["metadata"].get("annotations", {})
        path = "/metadata/annotations/io.katacontainers.config.hypervisor.cc_init_data"
        return [{"op": "remove", "path": path}] if there else []

    with other_webhook(authority.issue("127.0.0.1"), strip, tmp_path) as url:
        (other, _) = registrations(f"zz-{NAME}", url.rstrip("/"), authority.pem, {"kubernetes.io/metadata.name": shop})
        kubectl("apply", "-f", "-", input=yaml.safe_dump(other))
        try:
            message = wait_until_refused(lambda: dry_run(installed.cluster, shop, pod()), 403, "not-wired")
        finally:
            kubectl("delete", "mutatingwebhookconfiguration", f"zz-{NAME}")
    assert "check.kbs.confidential.dev" in message
    assert "cc_init_data is missing or was changed" in message
    wait_until(lambda: dry_run(installed.cluster, shop, pod()), "Pods are wired again")


# --- faults -----------------------------------------------------------------------------------------------------------


def test_killed(installed: Installed, shop: str, kubectl: Command) -> None:
    """Labelled Pods are refused until it is back; others never notice, nor does what tidies up."""
    body = pod("held")
    body["metadata"]["finalizers"] = ["example.test/job-tracking"]
    kubectl("apply", "-n", shop, "-f", "-", input=json.dumps(body))
    installed.process.kill()
    try:
        assert "failed calling webhook" in refused(installed.cluster, shop, pod())
        dry_run(installed.cluster, shop, pod(label=None))
        kubectl("delete", "pod", "held", "-n", shop, "--grace-period=0", "--force", "--wait=false")
        kubectl("patch", "pod", "held", "-n", shop, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    finally:
        installed.process.start()
    assert_wired(wait_until(lambda: dry_run(installed.cluster, shop, pod()), "Pods are wired again"))


@pytest.mark.parametrize("fault", ["slow", "wrong certificate", "wrong name"])
def test_a_webhook_that_cannot_be_believed_is_a_no(
    fault: str, installed: Installed, shop: str, kubectl: Command, authority: Authority, tmp_path: Path
) -> None:
    """With the shipped registration: failurePolicy Fail, whatever the reason."""
    here = {"kubernetes.io/metadata.name": shop}
    name = f"aa-{NAME}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if fault == "slow" else installed.process.port
        ca = Authority().pem if fault == "wrong certificate" else authority.pem
        host = "localhost" if fault == "wrong name" else "127.0.0.1"
        found = registrations(name, f"https://{host}:{port}", ca, here)
        for each in found[0]["webhooks"]:
            each["timeoutSeconds"] = 1
        kubectl("apply", "-f", "-", input=yaml.safe_dump(found[0]))
        try:
            message = wait_until_refused(lambda: dry_run(installed.cluster, shop, pod()), 500, "failed calling webhook")
        finally:
            kubectl("delete", "mutatingwebhookconfiguration", name)
    words = {"slow": "deadline exceeded", "wrong certificate": "certificate", "wrong name": "certificate"}
    assert words[fault] in message
    wait_until(lambda: dry_run(installed.cluster, shop, pod()), "Pods are wired again")


def test_the_certificate_changes_under_load(installed: Installed, shop: str, authority: Authority) -> None:
    """50 Pods a second while the files change three times, once to rubbish; nobody notices."""
    cluster, process = installed.cluster, installed.process
    stop, made, failed = threading.Event(), itertools.count(), list[str]()

    def create() -> None:
        while not stop.wait(0.06):
            try:
                assert_wired(dry_run(cluster, shop, pod(f"app-{next(made)}")))
            except (ApiException, AssertionError) as err:
                failed.append(str(err))

    workers = [threading.Thread(target=create) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        _put(process, authority.issue("127.0.0.1"))
        last = _put(process, authority.issue("127.0.0.1"))
        process.put(Leaf(authority.issue("127.0.0.1").certificate, authority.issue("127.0.0.1").key))
        wait_until(lambda: "the certificate before stays" in process.log_file.read_text(), "it says so")
        assert process.shown() == last
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        process.put(authority.issue("127.0.0.1"))
    assert failed == []
    assert next(made) > 20


def _put(process: WebhookProcess, leaf: Leaf) -> bytes:
    """Change the files, and wait until it shows: the certificate, DER."""
    expected = x509.load_pem_x509_certificates(leaf.certificate)[0].public_bytes(Encoding.DER)
    process.put(leaf)
    wait_until(lambda: process.shown() == expected, "new connections get the new certificate")
    return expected


def burst(cluster: Cluster, namespace: str, count: int, raw: bytes) -> list[float]:
    """Create so many Pods, four at a time; the seconds that each took."""

    def one(number: int) -> float:
        start = time.perf_counter()
        assert_wired(dry_run(cluster, namespace, pod(f"app-{number}", label="large")), raw, "large")
        return time.perf_counter() - start

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(count)))


def test_annotations_as_large_as_they_may_be(installed: Installed, shop: str, kubectl: Command) -> None:
    """Timed for people (`-s` shows it, KBS_PODS makes it more): docs/kubernetes-workloads.md has the numbers."""
    noise = os.urandom(165_000).hex()  # gzip halves hexadecimal digits, base64 adds a third
    raw = init_data(label=noise)
    value = annotation.encode(raw)
    assert 240 << 10 < len(value) < annotation.LIMIT - 1024
    kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(profile(shop, "large", raw)))
    wait_until(lambda: dry_run(installed.cluster, shop, pod(label="large")), "the large profile is known")
    count = int(os.environ.get("KBS_PODS", "40"))
    before = len(installed.process.lines())
    start = time.perf_counter()
    seconds = burst(installed.cluster, shop, count, raw)
    took = time.perf_counter() - start
    inside = [each["milliseconds"] for each in installed.process.lines()[before:] if each.get("door") == "mutate"]
    assert len(inside) >= count
    both = (sorted(seconds)[int(count * 0.99)] * 1000, statistics.quantiles(inside, n=100)[98])
    print(
        f"\n{count} Pods of {len(value)} bytes in {took:.1f} s; p99 {both[0]:.0f} ms, in the webhook {both[1]:.1f} ms"
    )


def test_the_log_says_what_was_decided_and_nothing_of_the_pod(installed: Installed, shop: str) -> None:
    dry_run(installed.cluster, shop, pod("told"))
    told = [each for each in installed.process.lines() if each.get("name") == "told"]
    # Asked again after the API server's own admission has put in the overhead of the RuntimeClass.
    assert [(each["door"], each["result"], each["dry_run"]) for each in told] == [
        ("mutate", "patched", True),
        ("mutate", "allowed", True),
        ("validate", "allowed", True),
    ]
    assert rendered()["annotation"][:60] not in installed.process.log_file.read_text()


def test_without_its_rights_it_is_not_ready_and_says_why(
    installed: Installed, shop: str, authority: Authority, tmp_path: Path
) -> None:
    nobody = installed.cluster.as_account(shop, "default")
    process = WebhookProcess(tmp_path / "nobody", authority, nobody)
    try:
        process.start(ready=False)
        wait_until(
            lambda: "workloadprofiles.kbs.confidential.dev in all namespaces: 403" in process.log_file.read_text(),
            "it says why",
        )
        assert process.probe("/readyz") == 503
        assert process.terminate() == 0
    finally:
        process.kill()


def test_it_outlives_its_api_server_and_store(
    separate_cluster: SeparateCluster, kubectl: Command, authority: Authority, tmp_path: Path
) -> None:
    """After both were killed and started, it hears of what is new."""
    admin = separate_cluster.kubeconfig

    def apply(text: str | Path) -> None:
        words = ("-f", text) if isinstance(text, Path) else ("-f", "-")
        kubectl("apply", "--server-side", *words, kubeconfig=admin, input=text if isinstance(text, str) else None)

    apply(CRDS / "workloadprofiles.yaml")
    listing = partial(ask, separate_cluster, "GET", "/apis/kbs.confidential.dev/v1alpha1/workloadprofiles")
    wait_until(listing, "the CRD is served")
    process = WebhookProcess(tmp_path / "webhook", authority, separate_cluster.admin)
    try:
        process.start()
        separate_cluster.apiserver.kill()
        separate_cluster.etcd.kill()
        assert process.probe("/readyz") == 200
        separate_cluster.etcd.start()
        separate_cluster.apiserver.start()
        with new_namespace(separate_cluster, "shop", LABELS):
            apply(yaml.safe_dump(profile("shop")))
            found = registrations(NAME, f"https://127.0.0.1:{process.port}", authority.pem, LABELS)
            apply(yaml.safe_dump_all(found))
            wait_until_refused(
                lambda: dry_run(separate_cluster, "shop", pod(hostPID=True)), 403, "host-pid", seconds=60
            )
    finally:
        process.kill()
