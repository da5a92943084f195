"""The published cases come out right, through verifier and default policy, and each refusal has its class."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.fakes.case_files import FACTORIES, load

FOLDER = Path(__file__).parents[4] / "vectors" / "sgx" / "synthetic"
CASES = sorted(FOLDER.glob("*.json"))


def test_every_case_comes_out_as_it_says() -> None:
    moment = datetime.fromisoformat("2026-06-15T12:00:00Z")
    judged: list[Judged] = []
    policies = DefaultPolicies(Shipped.load())
    counts = run_folder(FOLDER, lambda tee: FACTORIES[tee], WasmEngine(lambda: moment), policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (3, 0)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    (found,) = case.verify()
    assert found.claims["tcb_status"] == case.expect["tcb_status"]
    assert found.claims["debug"] is (case.name == "debug_enclave")
    assert found.claims["revocation"] == "checked"
