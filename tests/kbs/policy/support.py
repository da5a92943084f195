"""Short ways to make what policy tests need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rvps.model import Snapshot

NOW = datetime(2026, 6, 15, 12, 0, 0, 123456, tzinfo=UTC)


def snapshot(values: dict[str, Any] | None = None, version: str = "1", sets: Sequence[dict[str, Any]] = ()) -> Snapshot:
    """A snapshot of these reference values, and of these compound sets."""
    by_name = {name: [each for each in sets if name in each] for name in {name: 0 for each in sets for name in each}}
    return Snapshot(version, values or {}, json.dumps(values or {}).encode(), None, json.dumps(by_name).encode())


def document(value: Any) -> bytes:
    """A document as our strict encoder would make it."""
    return json.dumps(value, ensure_ascii=False).encode()


REQUEST = {"plugin": "resource", "resource-path": ["default", "key", "1"], "query": {"x": "y"}}
