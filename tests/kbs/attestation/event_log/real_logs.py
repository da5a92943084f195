"""The real logs under tests/vectors/eventlog, with the registers that they lead to."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from kbs.attestation.event_log.algorithms import BY_BANK, Algorithm

FOLDER = Path("tests/vectors/eventlog")
CCELS = sorted(path.name.removesuffix(".gz") for path in FOLDER.glob("CCEL*.gz"))
EXPECTED = sorted(path.name.removesuffix("_out.json") for path in FOLDER.glob("*_out.json"))
TCG_LOGS: dict[str, dict[str, dict[str, str]]] = json.loads((FOLDER / "tcg/replay.json").read_text())
TWO_SEPARATORS = ("CCEL_data_grub", "CCEL_data_ovmf")


@cache
def log_of(name: str) -> bytes:
    return gzip.decompress((FOLDER / f"{name}.gz").read_bytes())


@cache
def registers_of(name: str) -> tuple[Algorithm, tuple[bytes, ...]]:
    """Algorithm and registers 1 to 4 of a CCEL; zero where it has no events."""
    known = json.loads((FOLDER / "replay.json").read_text())[name]
    algorithm = BY_BANK[known["bank"]]
    zero = bytes(algorithm.size).hex()
    return algorithm, tuple(bytes.fromhex(known["registers"].get(str(index), zero)) for index in range(1, 5))


def expected(name: str) -> list[dict[str, Any]]:
    """What the reference implementation makes of a CCEL."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}_out.json").read_text())["uefi_event_logs"]
    return found


def pcrs_of(name: str, bank: str) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(value) for index, value in TCG_LOGS[name][bank].items()}
