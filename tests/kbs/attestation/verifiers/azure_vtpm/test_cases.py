"""The published cases come out right, through verifier and default policy, and each refusal has its class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.attestation.model import Verifier, VerifierOptions
from kbs.clock import system_clock
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    EndorsementExpired,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
    SignatureInvalid,
    TcbMismatch,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from kbs.protocol.tee import Tee
from tests.fakes.case_files import FACTORIES, load

VECTORS = Path(__file__).parents[4] / "vectors"
COUNTS = {"az-snp-vtpm": 22, "az-tdx-vtpm": 6}
REFUSALS: dict[str, dict[str, type[EvidenceRejected]]] = {
    "az-snp-vtpm": {
        "chip_id_mismatch": TcbMismatch,
        "downgrade": EvidenceVersionUnsupported,
        "few_pcrs": EvidenceMalformed,
        "foreign_root": ChainInvalid,
        "hash_type_sha384": BindingMismatch,
        "init_mismatch": InitDataMismatch,
        "no_akpub": EvidenceMalformed,
        "nonce_mismatch": BindingMismatch,
        "ok_v1_default": EvidenceVersionUnsupported,
        "pcr_swap": EvidenceMalformed,
        "quote_by_other_key": SignatureInvalid,
        "report_type_tdx": EvidenceMalformed,
        "user_data_mismatch": BindingMismatch,
        "user_data_short": BindingMismatch,
        "var_size_overflow": EvidenceMalformed,
        "vardata_edited": BindingMismatch,
        "vcek_expired": EndorsementExpired,
    },
    "az-tdx-vtpm": {
        "pcr_swap": EvidenceMalformed,
        "quote_not_bound": BindingMismatch,
        "sgx_quote": EvidenceMalformed,
        "tdreport_other": BindingMismatch,
    },
}
CASES = [(tee, path) for tee in COUNTS for path in sorted((VECTORS / tee / "synthetic").glob("*.json"))]


def _factory(tee: Tee) -> Callable[[VerifierOptions], Verifier]:
    return FACTORIES[tee]


@pytest.mark.parametrize("tee", COUNTS)
def test_published_cases(tee: str) -> None:
    judged: list[Judged] = []
    policies = DefaultPolicies(Shipped.load())
    folder = VECTORS / tee / "synthetic"
    counts = run_folder(folder, _factory, WasmEngine(system_clock), policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (COUNTS[tee], 0)


@pytest.mark.parametrize(("tee", "path"), CASES, ids=lambda value: value.stem if isinstance(value, Path) else value)
def test_case(tee: str, path: Path) -> None:
    case = load(path)
    if case.expect["authentic"]:
        (found,) = case.verify()
        assert (found.tee, found.device_class) == (tee, "cpu")
    else:
        with pytest.raises(REFUSALS[tee][case.name]):
            case.verify()


@pytest.mark.parametrize("tee", COUNTS)
def test_every_refused_case_has_a_class(tee: str) -> None:
    cases = [load(path) for of, path in CASES if of == tee]
    assert {case.name for case in cases if not case.expect["authentic"]} == set(REFUSALS[tee])


def test_claims_that_keep_a_case_from_affirming() -> None:
    def claims(tee: str, name: str) -> Any:
        return load(VECTORS / tee / "synthetic" / f"{name}.json").verify()[0].claims

    found = {name: claims("az-snp-vtpm", name) for name in ("ok_v2", "debug", "vmpl1", "secure_boot_off")}
    assert found["debug"]["policy_debug_allowed"] == "true"
    assert found["vmpl1"]["vmpl"] == 1
    assert found["secure_boot_off"]["secure-boot"] is False
    assert found["ok_v2"]["secure-boot"] is True
    assert found["ok_v2"]["revocation_waived"] is True
    assert claims("az-tdx-vtpm", "debug")["td_attributes"]["debug"] is True
    assert claims("az-tdx-vtpm", "ok_v2").items() >= {
        "tcb_status": "UpToDate", "secure-boot": True, "revocation": "checked", "tdreport_complete": False,
    }.items()  # fmt: skip
