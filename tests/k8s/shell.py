"""Scripts of a document, run as a user would who has `kbs`, `kubectl`, `helm` and the project's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.architecture.documents import Block, blocks, text_of
from tests.k8s.binaries import client
from tests.k8s.cluster import Cluster
from tests.k8s.conftest import ROOT


class Document:
    """One page and a folder in which its scripts run."""

    def __init__(self, page: Path, cluster: Cluster, folder: Path) -> None:
        for name in ("k8s", "policies"):
            (folder / name).symlink_to(ROOT / name)
        self.page = page
        self.folder = folder
        programs = [str(each) for each in (client("kubectl").parent, Path(sys.executable).parent)]
        path = ":".join([*programs, os.environ["PATH"]])
        self._environment = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(cluster.kubeconfig)}
        self.ran: list[str] = []

    def block(self, kind: str, having: str) -> Block:
        """The one block of that kind that is these words, else has them."""
        of_kind = [each for each in blocks(text_of(self.page)) if each.kind == kind]
        same = [each for each in of_kind if each.text.strip() == having]
        (found,) = same or [each for each in of_kind if having in each.text]
        return found

    def run(self, having: str, *, seconds: float = 120) -> str:
        """Run the one script with these words; what it prints."""
        script = self.block("sh", having).text
        self.ran.append(script)
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str, having: str) -> Path:
        """Save the one YAML block with these words under the name that the page uses."""
        path = self.folder / name
        path.write_text(self.block("yaml", having).text)
        return path

    def not_run(self) -> list[str]:
        """The scripts that `run` has not been called for."""
        return [each.text for each in blocks(text_of(self.page)) if each.kind == "sh" and each.text not in self.ran]
