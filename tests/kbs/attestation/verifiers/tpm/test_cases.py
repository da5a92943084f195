"""The published case files: verified, appraised by the default policy, and each refusal for its own cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.attestation.verifiers import tpm
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
from tests.fakes.case_files import load

CASES = Path(__file__).parents[4] / "vectors/tpm/synthetic"
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "ecdsa": SignerNotTrusted,
    "few_pcrs": EvidenceMalformed,
    "init_mismatch": InitDataMismatch,
    "magic": EvidenceMalformed,
    "nonce_mismatch": BindingMismatch,
    "nonce_short": BindingMismatch,
    "pcr_order": SignatureInvalid,
    "pcr_partial": EvidenceMalformed,
    "pcr_swap": EvidenceMalformed,
    "pcr_value_changed": SignatureInvalid,
    "sha1_bank": EvidenceMalformed,
    "sig_flip": SignatureInvalid,
    "truncated": EvidenceMalformed,
    "type_certify": EvidenceMalformed,
    "untrusted_ak": SignerNotTrusted,
}


def test_all_cases_come_out_right() -> None:
    judged: list[Judged] = []
    engine, policies = WasmEngine(system_clock), DefaultPolicies(Shipped.load())
    assert run_folder(CASES, lambda _: tpm.build, engine, policies, judged.append) == (17, 0)
    assert {each.name for each in judged if each.outcome.startswith("refused")} == REFUSALS.keys()


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_names_its_cause(name: str) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        load(CASES / f"{name}.json").verify()
    assert type(refused.value) is REFUSALS[name]
