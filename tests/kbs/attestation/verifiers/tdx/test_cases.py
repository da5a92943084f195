"""The published cases come out right, through verifier and default policy, and each refusal has its class."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from kbs.attestation.cases import DefaultPolicies, Judged, run_folder
from kbs.errors import (
    ChainInvalid,
    EndorsementExpired,
    EndorsementRevoked,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)
from kbs.policy.shipped import Shipped
from kbs.policy.wasm import WasmEngine
from tests.fakes.case_files import FACTORIES, load

FOLDER = Path(__file__).parents[4] / "vectors" / "tdx" / "synthetic"
CASES = sorted(FOLDER.glob("*.json"))
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "akt3": EvidenceVersionUnsupported,
    "body_flip": SignatureInvalid,
    "crl_expired": EndorsementExpired,
    "ct3": EvidenceVersionUnsupported,
    "fmspc_mismatch": TcbMismatch,
    "intermediate_revoked": EndorsementRevoked,
    "module_missing": TcbMismatch,
    "mrsigner_seam": TcbMismatch,
    "no_level": TcbMismatch,
    "other_root": ChainInvalid,
    "pceid_mismatch": TcbMismatch,
    "pck_expired": EndorsementExpired,
    "pck_revoked": EndorsementRevoked,
    "qe_debug": SignerNotTrusted,
    "qe_hash_bad": SignatureInvalid,
    "qe_id_for_sgx": ChainInvalid,
    "qe_prodid": SignerNotTrusted,
    "qe_revoked": TcbMismatch,
    "qe_signed_by_other": SignatureInvalid,
    "revoked_level": TcbMismatch,
    "servicetd": SignerNotTrusted,
    "sig_flip": SignatureInvalid,
    "tcb_edited": ChainInvalid,
    "tcb_expired": EndorsementExpired,
    "tcb_signed_by_pck": ChainInvalid,
    "tcb_whitespace": ChainInvalid,
    "trailing": EvidenceMalformed,
    "truncated": EvidenceMalformed,
}


def test_every_case_comes_out_as_it_says() -> None:
    moment = datetime.fromisoformat("2026-06-15T12:00:00Z")
    judged: list[Judged] = []
    policies = DefaultPolicies(Shipped.load())
    counts = run_folder(FOLDER, lambda tee: FACTORIES[tee], WasmEngine(lambda: moment), policies, judged.append)
    assert [each for each in judged if each.wrong] == []
    assert counts == (36, 0)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    if case.name in REFUSALS:
        with pytest.raises(REFUSALS[case.name]) as refused:
            case.verify()
        assert type(refused.value) is REFUSALS[case.name]
        return
    assert case.expect["authentic"]
    (found,) = case.verify()
    assert found.claims["tcb_status"] == case.expect["tcb_status"]
    assert found.claims["revocation"] == "checked"
