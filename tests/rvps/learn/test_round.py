"""Learnt from good evidence, the values affirm that very evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from kbs.cli.appraise import appraise_command
from rvps.learn.evidence import read
from rvps.learn.proposal import propose

VECTORS = Path(__file__).parents[2] / "vectors"


def appraised(case: dict[str, Any], folder: Path, references: dict[str, Any]) -> bytes:
    """What `kbs appraise --json` says of a case with these reference values."""
    file = folder / "case.json"
    file.write_text(json.dumps({**case, "reference_values": references}))
    return CliRunner().invoke(appraise_command, ["--replay", str(file), "--json"]).stdout.encode()


def test_evidence_is_affirmed_by_what_was_learnt_from_it(tmp_path: Path) -> None:
    case = json.loads((VECTORS / "snp/synthetic/ok_genoa_v5.json").read_text())
    first = appraised(case, tmp_path, {})
    assert json.loads(first)["submods"]["cpu0"]["status"] != "affirming"
    second = appraised(case, tmp_path, propose(read(first)).values())
    assert json.loads(second)["submods"]["cpu0"]["status"] == "affirming"
