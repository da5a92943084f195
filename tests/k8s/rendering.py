"""Renders what is shipped below k8s/, with the programs that users have, and without a cluster."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.k8s import binaries

ROOT: Final = Path(__file__).parents[2]
K8S: Final = ROOT / "k8s"
CHART: Final = K8S / "chart"
Object = dict[str, Any]


class Refused(Exception):
    """The program refused; its words."""


@cache
def kustomize(folder: str) -> tuple[Object, ...]:
    """`kubectl kustomize k8s/FOLDER`."""
    return _objects("kubectl", "kustomize", str(K8S / folder))


def kustomize_with(folder: Path, text: str) -> tuple[Object, ...]:
    """A kustomization of a user's own, whose `K8S` stands for the shipped folder."""
    (folder / "kustomization.yaml").write_text(text.replace("K8S", os.path.relpath(K8S, folder.resolve())))
    return _objects("kubectl", "kustomize", str(folder))


@cache
def helm(*arguments: str, release: str = "kbs", namespace: str = "kbs") -> tuple[Object, ...]:
    """`helm template RELEASE k8s/chart -n NAMESPACE …`; CRDs are left out, as they take most of the time.

    Raises:
        Refused: the schema or a check of the chart.
    """
    return _objects("helm", "template", release, str(CHART), "-n", namespace, *arguments)


def values(name: str) -> tuple[str, str]:
    """The option for a file of values that is shipped."""
    return "--values", str(CHART / "values" / f"{name}.yaml")


def _objects(*words: str) -> tuple[Object, ...]:
    return tuple(each for each in yaml.load_all(_run(words), Loader=yaml.CSafeLoader) if each)


def _run(words: Sequence[str]) -> bytes:
    program = binaries.found(binaries.client(words[0]))
    with tempfile.TemporaryDirectory() as home:
        surroundings = {"HOME": home, "PATH": os.environ["PATH"]}
        done = subprocess.run([program, *words[1:]], env=surroundings, capture_output=True, timeout=120, check=False)
    if done.returncode:
        raise Refused(done.stderr.decode())
    return done.stdout
