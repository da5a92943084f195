"""Real quotes with their collateral and a time inside its validity."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[3] / "vectors"
TIMES = {
    "tdx/tdx_quote_4": "2026-03-31T12:00:00Z",
    "tdx/tdx_quote_5": "2025-06-15T12:00:00Z",
    "tdx/tdx_quote_6": "2025-11-04T12:00:00Z",
    "tdx/phala_tdx_quote": "2025-07-04T12:00:00Z",
    "tdx/azure_v5_no_tcb_level": "2026-03-05T12:00:00Z",
    "tdx/automata_v4_00806f": "2025-02-28T12:00:00Z",
    "tdx/live_b0c06f": "2026-03-31T12:00:00Z",
    "tdx/oe_v4_50806f": "2026-03-31T12:00:00Z",
    "sgx/occlum_quote": "2025-08-30T12:00:00Z",
    "sgx/phala_sgx_quote": "2025-07-04T12:00:00Z",
    "sgx/automata_v3": "2025-08-30T12:00:00Z",
}


def quote(name: str) -> bytes:
    return (VECTORS / f"{name}.dat").read_bytes()


def collateral(name: str) -> dict[str, Any]:
    bundle: dict[str, Any] = json.loads((VECTORS / f"{name}.collateral.json").read_text())
    return bundle


def time_of(name: str) -> datetime:
    return datetime.fromisoformat(TIMES[name])
