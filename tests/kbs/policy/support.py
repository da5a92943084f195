"""Short ways to make what policy tests need."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rvps.model import Snapshot

NOW = datetime(2026, 6, 15, 12, 0, 0, 123456, tzinfo=UTC)


def snapshot(values: dict[str, Any] | None = None, version: str = "1") -> Snapshot:
    """A snapshot of these reference values."""
    return Snapshot(version, values or {}, json.dumps(values or {}).encode(), None)


def document(value: Any) -> bytes:
    """A document as our strict encoder would make it."""
    return json.dumps(value, ensure_ascii=False).encode()


REQUEST = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {"x": "y"}}
