"""Starts a container as Kubernetes' restricted profile has it: by runc, read-only, without rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_NAMESPACES: Final = ("pid", "ipc", "uts", "mount")  # the network is the machine's, to be reached by tests


class Container:
    """One that runs."""

    def __init__(self, name: str, state: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self._runc = ["runc", "--root", str(state)]
        self._name = name
        self.process = process
        self.log = log

    def status(self) -> dict[str, str]:
        """Of its first process: `/proc/PID/status`."""
        done = subprocess.run([*self._runc, "state", self._name], check=True, capture_output=True)
        lines = Path(f"/proc/{json.loads(done.stdout)['pid']}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it."""
        return subprocess.run([*self._runc, "exec", self._name, *arguments], capture_output=True, text=True)

    def terminate(self) -> int:
        """SIGTERM to its first process; the exit status."""
        subprocess.run([*self._runc, "kill", self._name, "TERM"], check=True)
        return self.process.wait(40)

    def end(self) -> None:
        """For good."""
        if self.process.poll() is None:
            subprocess.run([*self._runc, "kill", self._name, "KILL"], check=False)
            self.process.wait(20)
        subprocess.run([*self._runc, "delete", "--force", self._name], check=False, capture_output=True)


@contextmanager
def started(
    tree: Path,
    configuration: Mapping[str, Any],
    arguments: Sequence[str] | None,
    volumes: Mapping[str, Path],
    *,
    env: Sequence[str] = (),
) -> Iterator[Container]:
    """Start what the image's own configuration says.

    Args:
        arguments: in place of `Cmd`; None: that.
        volumes: place in the container, folder here.
    """
    with tempfile.TemporaryDirectory(prefix="kbs-runc-", dir="/var/tmp") as name:
        bundle = Path(name)
        hosts = bundle / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")  # every runtime mounts one
        hosts.chmod(0o644)
        bundle.chmod(0o711)
        specification = _specification(tree, configuration, arguments, {"/etc/hosts": hosts, **volumes}, env)
        (bundle / "config.json").write_text(json.dumps(specification))
        log = bundle / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["runc", "--root", str(bundle / "state"), "run", "--bundle", str(bundle), bundle.name],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        container = Container(bundle.name, bundle / "state", process, log)
        try:
            yield container
        finally:
            container.end()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _specification(
    tree: Path,
    configuration: Mapping[str, Any],
    arguments: Sequence[str] | None,
    volumes: Mapping[str, Path],
    env: Sequence[str],
) -> dict[str, Any]:
    user, _, group = configuration["User"].partition(":")
    quiet = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "kbs",
        "root": {"path": str(tree), "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*configuration["Entrypoint"], *(configuration["Cmd"] if arguments is None else arguments)],
            "env": [*configuration["Env"], *env],
            "cwd": configuration["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
            "terminal": False,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", "size=64m"]},
            *(
                {
                    "destination": place,
                    "type": "bind",
                    "source": str(folder),
                    "options": ["bind", "rw", "nosuid", "nodev"],
                }
                for place, folder in volumes.items()
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
    }
