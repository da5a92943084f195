"""Many policies on an OPA server at once: one bundle, compiled once when the server starts.

Pushed one by one, as a broker does when it meets them, each of the three modules of a policy has the server compile
all that it holds: the time rises with the square of the number. A broker keeps no more than 128 there.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from kbs.policy.engine import Policy
from kbs.policy.opa import OpaEngine
from kbs.policy.opa_link import OpaLink, OpaServerSettings
from rvps.model import Snapshot


class _Collecting(OpaLink):
    """Keeps what an engine sends instead of sending it."""

    def __init__(self, settings: OpaServerSettings) -> None:
        super().__init__(settings)
        self.modules: dict[str, str] = {}
        self.data: dict[str, object] = {}

    def put_policy(self, name: str, text: str) -> None:
        self.modules[name] = text

    def put_data(self, path: str, value: object) -> None:
        self.data[path] = value


@contextmanager
def preloaded(opa: Path, policies: Sequence[Policy], values: Snapshot, seconds: float) -> Iterator[OpaEngine | None]:
    """An engine whose server holds all of these policies and values; None when it did not start in that time."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        collecting = _Collecting(OpaServerSettings(socket=folder / "s", timeout=30))
        engine = OpaEngine(collecting)
        # Without a server there is no syntax tree to check; and all of them shall have room.
        with patch("kbs.policy.opa.check_relocated"), patch("kbs.policy.opa._MAX_ROOTS", len(policies)):
            for policy in policies:
                root = engine._root(policy)
                engine._send(policy, root, engine._version(values), values, again=False)
        for path, text in collecting.modules.items():
            file = folder / "bundle" / f"{path}.rego"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        _write_data(folder / "bundle", collecting.data)
        server = _start(opa, folder, seconds)
        try:
            engine._link = OpaLink(OpaServerSettings(socket=folder / "s", timeout=30))
            yield engine if server is not None else None
        finally:
            if server is not None:
                server.kill()
                server.wait()


def _write_data(folder: Path, data: dict[str, object]) -> None:
    for path, value in data.items():
        file = folder / path / "data.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")


def _start(opa: Path, folder: Path, seconds: float) -> subprocess.Popen[bytes] | None:
    address = f"unix://{folder / 's'}"
    command: list[str | Path] = [
        opa,
        "run",
        "--server",
        "--addr",
        address,
        "--log-level",
        "error",
        str(folder / "bundle"),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        if (folder / "s").exists():
            return server
        time.sleep(0.05)
    server.kill()
    server.wait()
    return None
