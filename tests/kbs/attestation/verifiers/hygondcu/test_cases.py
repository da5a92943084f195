"""The published cases come out right, through verifier and default policy, and each refusal has its class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.clock import system_clock
from kbs.errors import (
    BindingMismatch,
    EvidenceMalformed,
    EvidenceRejected,
    SignatureInvalid,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from tests.fakes.case_files import FACTORIES, load

CASES = Path(__file__).parents[4] / "vectors" / "hygondcu" / "synthetic"
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "chip_id_traversal": EvidenceMalformed,
    "duplicate": EvidenceMalformed,
    "empty": EvidenceMalformed,
    "flip": SignatureInvalid,
    "signed_by_other": SignatureInvalid,
    "user_data": BindingMismatch,
}


def factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    return FACTORIES[tee]


def test_all_cases_under_the_default_policy() -> None:
    judged: list[Judged] = []
    counts = run_folder(CASES, factory, WasmEngine(system_clock), DefaultPolicies(Shipped.load()), judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (8, 0)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_have_their_class(name: str) -> None:
    case = load(CASES / f"{name}.json")
    with pytest.raises(REFUSALS[name]):
        case.verify()


def test_every_refused_case_has_a_class() -> None:
    assert {path.stem for path in CASES.iterdir() if not load(path).expect["authentic"]} == set(REFUSALS)


@pytest.mark.parametrize("name", ["chip_id_traversal", "duplicate", "empty"])
def test_bad_lists_and_ids_are_refused_before_anything_is_fetched(name: str) -> None:
    case = load(CASES / f"{name}.json")
    with pytest.raises(EvidenceMalformed):
        case.verifier().needs(case.evidence)
