"""Fixtures for tests on a real Kubernetes API server; `make test-k8s` runs them, `make test` does not collect them.

One control plane per pytest process, up in about four seconds at 320 MB, and one namespace per test. Pods never run
here: `set_running` makes them look so, and `tests.k8s.kubelet` starts their containers' commands as processes.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from kbs.k8s.model import API_VERSION
from tests.k8s import binaries
from tests.k8s.certificates import Authority
from tests.k8s.cluster import Cluster, SeparateCluster, new_namespace, wait_until
from tests.k8s.inventory import inventory
from tests.k8s.kubelet import Node

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "k8s/crds"
IMAGE = "ghcr.io/confidential-key-broker/kbs"
Command = Callable[..., subprocess.CompletedProcess[str]]

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests in this folder need a cluster and therefore sockets; those that want it bare come last.

    Also to each worker of pytest-xdist, as long as it hands them out in order: `--dist load`.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.k8s)
            item.add_marker(pytest.mark.enable_socket)
    items.sort(key=lambda item: "bare_cluster" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def control_plane() -> Path:
    """The program `controlplane`."""
    return binaries.found(binaries.control_plane())


@pytest.fixture(scope="session")
def cluster(control_plane: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The API server that all tests share; what is not in a namespace must have a name of the test's own."""
    running = Cluster(control_plane, tmp_path_factory.mktemp("cluster"))
    yield running
    running.stop()


@pytest.fixture
def separate_cluster(control_plane: Path, tmp_path: Path) -> Iterator[SeparateCluster]:
    """A cluster for one test, whose etcd, API server and controllers it may kill and start. Six seconds."""
    running = SeparateCluster(control_plane, tmp_path / "cluster")
    yield running
    running.stop()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new namespace, gone after the test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    with new_namespace(cluster, f"{words[:40].strip('-')}-{os.getpid()}-{next(_numbers)}") as name:
        yield name


@pytest.fixture
def node(cluster: Cluster, tmp_path: Path) -> Iterator[Node]:
    """Where Pods run: ours, whose image is this checkout's `kbs`. Services are reached while it is there."""
    here = Node(cluster, tmp_path / "node", {IMAGE: [str(Path(sys.executable).with_name("kbs"))]})
    yield here
    here.stop()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A CA, for webhooks and brokers."""
    return Authority()


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`kubectl("get", "pods", "-n", namespace)`: runs it as a user would; see `_command`."""
    return _command(binaries.found(binaries.client("kubectl")), cluster, tmp_path_factory.mktemp("kubectl"))


@pytest.fixture(scope="session")
def helm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`helm("install", "kbs", "k8s/chart", "-n", namespace)`: runs it as a user would; see `_command`."""
    return _command(binaries.found(binaries.client("helm")), cluster, tmp_path_factory.mktemp("helm"))


def _command(program: Path, cluster: Cluster, home: Path) -> Command:
    """Runs a client of the API server in the project's root.

    input: text for its standard input. check: a failure is an AssertionError with its words (default).
    kubeconfig: another one than the administrator's. timeout: seconds.
    """
    surroundings = {"HOME": str(home), "PATH": os.environ["PATH"]}

    def run(
        *arguments: str | Path,
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(program), *map(str, arguments)],
            input=input if input is not None else "",
            env={**surroundings, "KUBECONFIG": str(kubeconfig or cluster.kubeconfig)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        words = f"{program.name} {' '.join(map(str, arguments))}"
        assert not check or done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def installed_crds(cluster: Cluster, kubectl: Command) -> list[str]:
    """Our custom resource definitions, served; returns their names (`brokerresources.kbs.confidential.dev`)."""
    applied = kubectl("apply", "--server-side", "-k", CRDS, "-o", "name").stdout.split()
    names = [name.partition("/")[2] for name in applied if name.startswith("customresourcedefinition")]
    for name in names:
        plural, _, group = name.partition(".")
        listing = partial(cluster.custom.list_cluster_custom_object, group, "v1alpha1", plural)
        wait_until(listing, f"{name} is served")
    return names


@pytest.fixture
def bare_cluster(cluster: Cluster, kubectl: Command) -> Cluster:
    """The same cluster with nothing of ours in it, for tests that install everything and take it away again."""
    for kind in cluster.read("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]:
        for each in cluster.read(f"/apis/{API_VERSION}/{kind['spec']['names']['plural']}")["items"]:
            place = ("-n", each["metadata"]["namespace"], kind["metadata"]["name"], each["metadata"]["name"])
            kubectl("patch", *place, "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
    kubectl("delete", "--ignore-not-found", "-k", CRDS)

    def ours() -> set[str]:
        return {each for each in inventory(cluster) if " /kbs" in each or each.endswith(".kbs.confidential.dev")}

    wait_until(lambda: not ours(), "what earlier tests installed is gone", seconds=60)
    return cluster
