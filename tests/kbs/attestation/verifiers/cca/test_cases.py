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
    InitDataMismatch,
    SignatureInvalid,
    SignerNotTrusted,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from tests.fakes.case_files import FACTORIES, load

FOLDER = Path(__file__).parents[4] / "vectors" / "cca" / "synthetic"
CASES = sorted(FOLDER.glob("*.json"))
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "alg_mismatch": SignatureInvalid,
    "binder": SignatureInvalid,
    "challenge": BindingMismatch,
    "challenge_short": EvidenceMalformed,
    "dup_keys": EvidenceMalformed,
    "impl_id_other": SignerNotTrusted,
    "missing_rim": EvidenceMalformed,
    "platform_signed_by_other": SignatureInvalid,
    "realm_signed_by_other": SignatureInvalid,
    "rem_three": EvidenceMalformed,
    "rpv_mismatch": InitDataMismatch,
    "trailing": EvidenceMalformed,
    "truncated": EvidenceMalformed,
    "wrong_tag": EvidenceMalformed,
}


def _factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    return FACTORIES[tee]


def test_published_cases() -> None:
    judged: list[Judged] = []
    policies = DefaultPolicies(Shipped.load())
    counts = run_folder(FOLDER, _factory, WasmEngine(system_clock), policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (19, 0)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    assert case.expect["authentic"] == (case.name not in REFUSALS)
    if case.expect["authentic"]:
        (found,) = case.verify()
        assert (found.tee, found.device_class, found.claims["revocation"]) == (Tee.CCA, "cpu", "not_applicable")
    else:
        with pytest.raises(REFUSALS[case.name]):
            case.verify()


def test_claims_that_keep_a_case_from_affirming() -> None:
    claims = {
        name: load(FOLDER / f"{name}.json").verify()[0].claims
        for name in ("ok_legacy", "lifecycle_debug", "sw_component_changed", "sw_component_changed_default")
    }
    assert claims["ok_legacy"]["platform_lifecycle"] == "secured"
    assert claims["lifecycle_debug"]["platform_lifecycle"] == "non_cca_platform_rot_debug"
    assert claims["lifecycle_debug"]["platform"]["cca-platform-lifecycle"] == 0x4003
    assert claims["sw_component_changed"]["platform_firmware"] == "unknown"
    assert claims["sw_component_changed_default"]["platform_firmware"] == "not_checked"
