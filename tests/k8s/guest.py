"""A software guest in a Pod: it knows what a Kata guest knows, the Pod's annotation and what stands in it."""

from __future__ import annotations

import base64
import gzip
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from tests.k8s.kubelet import RunningPod

ANNOTATION: Final = "io.katacontainers.config.hypervisor.cc_init_data"
_KBS: Final = str(Path(sys.executable).with_name("kbs"))


def document_of(pod: dict[str, Any]) -> bytes:
    """The init-data document that a Pod carries: the guest measures these very bytes."""
    return gzip.decompress(base64.b64decode(pod["metadata"]["annotations"][ANNOTATION]))


def with_document(pod: dict[str, Any], document: bytes) -> dict[str, Any]:
    """The Pod with another document in its annotation, as whoever rules the workload cluster could make it."""
    annotation = base64.b64encode(gzip.compress(document)).decode()
    metadata = pod["metadata"]
    return {**pod, "metadata": {**metadata, "annotations": {**metadata["annotations"], ANNOTATION: annotation}}}


class Guest:
    """The guest of one Pod. It runs in the Pod's network; nothing but the document tells it where its broker is."""

    def __init__(self, running: RunningPod, pod: dict[str, Any] | None = None) -> None:
        """pod: another one than runs, for an annotation that was changed on the way."""
        self._container = next(iter(running.containers.values()))
        document = document_of(pod or running.pod)
        settings = tomllib.loads(tomllib.loads(document.decode())["data"]["aa.toml"])["token_configs"]["kbs"]
        self.url: str = settings["url"]
        folder = running.folder / "guest"
        folder.mkdir(exist_ok=True)
        self._document, self._ca = folder / "initdata.toml", folder / "ca.pem"
        self._document.write_bytes(document)
        self._ca.write_text(settings["cert"])

    def get(self, path: str) -> subprocess.CompletedProcess[str]:
        """Attest anew and fetch a resource."""
        where = ["--url", self.url, "--ca-file", str(self._ca), "--init-data", str(self._document)]
        return self._container.execute(_KBS, "guest", "get", path, *where)
