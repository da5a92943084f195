"""A log in a temporary folder, and events to put in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.log import AuditLog

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
ORIGIN = "kbs.example/audit"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "log"


@pytest.fixture
def head_path(tmp_path: Path) -> Path:
    return tmp_path / "heads" / "head"


@pytest.fixture
def open_log(path: Path, head_path: Path) -> Iterator[Callable[[], AuditLog]]:
    made: list[AuditLog] = []

    def build() -> AuditLog:
        made.append(AuditLog(path, head_path, KEY, origin=ORIGIN, clock=lambda: NOW))
        return made[-1]

    yield build
    for log in made:
        log.close()
