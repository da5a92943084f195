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
    ChainInvalid,
    EvidenceMalformed,
    EvidenceRejected,
    SignatureInvalid,
    TcbMismatch,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from tests.fakes.case_files import FACTORIES, load

CASES = Path(__file__).parents[4] / "vectors" / "csv" / "synthetic"
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "flip": SignatureInvalid,
    "hsk_not_by_hrk": ChainInvalid,
    "pek_not_by_cek": ChainInvalid,
    "report_data": BindingMismatch,
    "serial_mismatch": TcbMismatch,
    "serial_traversal": EvidenceMalformed,
    "signed_by_other": SignatureInvalid,
}


def factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    return FACTORIES[tee]


def test_all_cases_under_the_default_policy() -> None:
    judged: list[Judged] = []
    counts = run_folder(CASES, factory, WasmEngine(system_clock), DefaultPolicies(Shipped.load()), judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (10, 0)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_have_their_class(name: str) -> None:
    case = load(CASES / f"{name}.json")
    with pytest.raises(REFUSALS[name]):
        case.verify()


def test_every_refused_case_has_a_class() -> None:
    assert {path.stem for path in CASES.iterdir() if not load(path).expect["authentic"]} == set(REFUSALS)


def test_a_bad_serial_number_is_refused_before_anything_is_fetched() -> None:
    case = load(CASES / "serial_traversal.json")
    with pytest.raises(EvidenceMalformed):
        case.verifier().needs(case.evidence)


def test_claims_of_the_good_ones() -> None:
    (first,) = load(CASES / "ok_v1.json").verify()
    (second,) = load(CASES / "ok_v2.json").verify()
    (debug,) = load(CASES / "debug_allowed.json").verify()
    assert (first.claims["version"], second.claims["version"]) == ("1", "2")
    assert first.claims["policy"] == {
        "nodbg": 1, "noks": 1, "es": 0, "nosend": 1, "domain": 0, "csv": 0, "csv3": 0, "asid_reuse": 0,
        "hsk_version": 0, "cek_version": 0, "api_major": 0, "api_minor": 0,
    }  # fmt: skip
    assert debug.claims["policy"]["nodbg"] == 0
    assert second.claims["build"] == 7
    assert second.claims["rtmr0"] == second.claims["measure"]
