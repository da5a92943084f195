"""Makes rvps/learn/table.json of the shipped policy's tables: which claim is compared with which reference value.

Run `python -m tests.learn_table` after a change of policies/lib/cpu.rego; a test compares.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.opa_binary import find_opa

ROOT: Final = Path(__file__).parent.parent
TABLE: Final = ROOT / "rvps/learn/table.json"
_BY_REFERENCE: Final = {"in", "equals", "at least", "contains"}
_CONSTANT: Final = {"is", "one of", "begins"}
_PASSING: Final = {"binding", "revocation", "tcb_status", "collateral_expiration_status", "platform_firmware"}


def made(opa: Path) -> dict[str, Any]:
    """The table as the policy has it now."""
    document: dict[str, Any] = {}
    for tee in _evaluated(opa, 'data.kbs.cpu.tees - {"sample", "nitro"}'):
        document[tee] = _rows(_evaluated(opa, f'data.kbs.cpu.table("{tee}")'))
    for kind, table in _evaluated(opa, "data.kbs.cpu.nitro_tables").items():
        document[f"nitro:{kind}"] = _rows(table)
    return dict(sorted(document.items()))


def _rows(table: dict[str, Any]) -> dict[str, Any]:
    checks = [check for group in table.values() for rows in group.values() for check in rows]
    learnt = [{"claim": c[0], "compare": c[1], "name": c[2]} for c in checks if c[1] in _BY_REFERENCE]
    fixed = [
        {"claim": c[0], "compare": c[1], "value": c[2], "waiver": c[3] if len(c) > 3 else None}
        for c in checks
        if c[1] in _CONSTANT and not (isinstance(c[0], str) and c[0] in _PASSING)
    ]
    assert {c[1] for c in checks} <= _BY_REFERENCE | _CONSTANT
    return {"learnt": _once(learnt), "fixed": _once(fixed)}


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for index, row in enumerate(rows) if row not in rows[:index]]


def _evaluated(opa: Path, query: str) -> Any:
    command = [str(opa), "eval", "-d", str(ROOT / "policies/lib/cpu.rego"), "-f", "json", query]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    return json.loads(answer)["result"][0]["expressions"][0]["value"]


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    found = find_opa()
    assert found is not None, "needs opa"
    TABLE.write_text(text_of(made(found)), "utf-8")
