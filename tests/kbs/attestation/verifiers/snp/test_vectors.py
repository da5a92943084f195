"""Case files, and real evidence under AMD's real roots at a time inside its validity."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import snp
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementRevoked,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)
from kbs.protocol.tee import Tee
from tests.fakes.case_files import load

VECTORS = Path(__file__).parents[4] / "vectors" / "snp"
CASES = sorted((VECTORS / "synthetic").glob("*.json"))
REFUSALS: dict[str, type[EvidenceRejected]] = {
    "ask_revoked": EndorsementRevoked,
    "chip_id_mismatch": TcbMismatch,
    "key_info_mismatch": ChainInvalid,
    "measurement_flip": SignatureInvalid,
    "no_certs": EndorsementMissing,
    "ok_vlek_default": SignerNotTrusted,
    "own_chain_in_evidence": ChainInvalid,
    "rep_gt_current": TcbMismatch,
    "short_field": EvidenceMalformed,
    "sig_algo": EvidenceVersionUnsupported,
    "sig_flip": SignatureInvalid,
    "tcb_mismatch": TcbMismatch,
    "turin_chip_id_mismatch": TcbMismatch,
    "turin_fmc_mismatch": TcbMismatch,
    "vcek_expired": EndorsementExpired,
    "version2": EvidenceVersionUnsupported,
    "vmpl_host": SignerNotTrusted,
    "wrong_issuer_key": ChainInvalid,
}
MID_2026 = datetime(2026, 6, 15, 12, tzinfo=UTC)
TIMES = {
    "turin_v5": datetime(2026, 7, 15, 12, tzinfo=UTC),
    "milan_v3_vlek_vmpl1": datetime(2025, 6, 15, 12, tzinfo=UTC),
}
REAL: dict[str, dict[str, Any]] = {  # set: claims that its reading must give
    "milan_v2": {"version": 2, "product": "Milan", "policy_abi_minor": 0x1F, "provisional_firmware": True},
    "virtee_milan_v2": {"version": 2, "policy_abi_minor": 0, "reported_tcb_microcode": 115},
    "aci_milan_v2": {"init_data": "cadd74f71ebb8fbf9782baab649612520f3c416bc5ce9ac768808ddc8d9b031c", "guest_svn": 2},
    "gce_milan_v2_debug": {"policy_debug_allowed": True, "reported_tcb_bootloader": 2},
    "milan_v3": {"version": 3, "product": "Milan", "reported_tcb_microcode": 219, "provisional_firmware": False},
    "milan_v3_vlek_vmpl1": {"vmpl": 1, "vek": "vlek", "csp_id": "CN=cc-us-east-2.amazonaws.com", "chip_id": "00" * 64},
    "turin_v5": {"version": 5, "product": "Turin", "reported_tcb_fmc": 1, "reported_tcb_snp": 5, "reported_tcb_tee": 2},
}
OPTIONS = {"snp_v2_product": "Milan", "snp_vlek_csp_ids": ["CN=cc-us-east-2.amazonaws.com"]}


def real(name: str) -> Evidence:
    return Evidence(Tee.SNP, json.loads((VECTORS / f"{name}.evidence.json").read_text()))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    if case.expect["authentic"]:
        (found,) = case.verify()
        assert found.claims["revocation"] == "checked"
    else:
        with pytest.raises(REFUSALS[case.name]):
            case.verify()


def test_every_refused_case_has_a_class() -> None:
    assert {case.name for case in map(load, CASES) if not case.expect["authentic"]} == set(REFUSALS)


def test_claims_that_keep_a_case_from_affirming() -> None:
    found = {name: load(VECTORS / "synthetic" / f"{name}.json").verify()[0].claims for name in
             ("debug", "migrate_ma", "vmpl1", "tee_tcb_downgrade", "ok_milan_v3", "ok_vlek")}  # fmt: skip
    assert found["debug"]["policy_debug_allowed"] is True
    assert found["migrate_ma"]["policy_migrate_ma"] is True
    assert found["vmpl1"]["vmpl"] == 1
    assert found["tee_tcb_downgrade"]["reported_tcb_bootloader"] == 1
    assert found["ok_milan_v3"]["policy_debug_allowed"] is False
    assert found["ok_vlek"]["csp_id"] == "CN=example-csp-region"


@pytest.mark.parametrize("name", REAL)
def test_real_evidence_is_accepted_in_both_forms(name: str) -> None:
    verifier = snp.build(VerifierOptions(OPTIONS))
    at = TIMES.get(name, MID_2026)
    report = (VECTORS / f"{name}.report.bin").read_bytes()
    raw = Evidence(Tee.SNP, report)
    kind = "vlek" if "vlek" in name else "vcek"
    vek = base64.b64encode((VECTORS / f"{name}.{kind}.der").read_bytes()).decode()
    binding = Binding(report[0x50:0x90])
    (from_json,) = verifier.verify(real(name), Endorsements(), binding, at)
    (from_raw,) = verifier.verify(raw, verifier.endorsements_from(raw, {kind: vek}), binding, at)
    assert from_json == from_raw
    assert from_json.claims.items() >= REAL[name].items()
    assert from_json.claims["revocation"] == "not_checked"


def test_real_genoa_evidence_is_accepted() -> None:
    (found,) = snp.build(VerifierOptions()).verify(real("e2e_genoa_v3"), Endorsements(), Binding(None), MID_2026)
    assert found.claims["product"] == "Genoa"
    assert found.claims["report_data"].startswith("7e7320889600c7ac")


@pytest.mark.parametrize("name", ["milan_v2", "virtee_milan_v2", "aci_milan_v2", "gce_milan_v2_debug"])
def test_version_2_needs_a_product(name: str) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        snp.build(VerifierOptions()).verify(real(name), Endorsements(), Binding(None), MID_2026)


def test_version_2_of_another_product_is_refused() -> None:
    verifier = snp.build(VerifierOptions({"snp_v2_product": "Genoa"}))
    with pytest.raises(ChainInvalid):
        verifier.verify(real("milan_v2"), Endorsements(), Binding(None), MID_2026)


def test_vlek_needs_its_provider() -> None:
    with pytest.raises(SignerNotTrusted):
        snp.build(VerifierOptions()).verify(
            real("milan_v3_vlek_vmpl1"), Endorsements(), Binding(None), TIMES["milan_v3_vlek_vmpl1"]
        )


def test_expired_vlek_is_refused() -> None:
    verifier = snp.build(VerifierOptions(OPTIONS))
    with pytest.raises(EndorsementExpired):
        verifier.verify(real("milan_v3_vlek_vmpl1"), Endorsements(), Binding(None), MID_2026)


@pytest.mark.parametrize("vcek", ["milan_v2.wrong-vcek-1.der", "milan_v2.wrong-vcek-2.der"])
def test_vcek_of_another_issuer_is_refused(vcek: str) -> None:
    verifier = snp.build(VerifierOptions(OPTIONS))
    raw = Evidence(Tee.SNP, (VECTORS / "milan_v2.report.bin").read_bytes())
    given = verifier.endorsements_from(raw, {"vcek": base64.b64encode((VECTORS / vcek).read_bytes()).decode()})
    with pytest.raises(ChainInvalid):
        verifier.verify(raw, given, Binding(None), MID_2026)


def test_genuine_vcek_of_another_chip_is_refused() -> None:
    verifier = snp.build(VerifierOptions(OPTIONS))
    raw = Evidence(Tee.SNP, (VECTORS / "turin_v5.report.bin").read_bytes())
    other = base64.b64encode((VECTORS / "vcek_turin.der").read_bytes()).decode()
    with pytest.raises(SignatureInvalid):
        verifier.verify(raw, verifier.endorsements_from(raw, {"vcek": other}), Binding(None), TIMES["turin_v5"])


def test_another_challenge_is_refused() -> None:
    with pytest.raises(BindingMismatch):
        snp.build(VerifierOptions()).verify(real("milan_v3"), Endorsements(), Binding(bytes(47) + b"\1"), MID_2026)


@pytest.mark.parametrize("name", ["milan_v3", "turin_v5"])
def test_any_flipped_byte_of_a_real_report_is_refused(name: str) -> None:
    verifier = snp.build(VerifierOptions())
    report = (VECTORS / f"{name}.report.bin").read_bytes()
    vek = (VECTORS / f"{name}.vcek.der").read_bytes()
    need = next(n.name for n in verifier.needs(Evidence(Tee.SNP, report)) if n.required)
    at = TIMES.get(name, MID_2026)
    assert verifier.verify(Evidence(Tee.SNP, report), Endorsements({need: vek}), Binding(None), at)
    for offset in range(len(report)):
        forged = bytearray(report)
        forged[offset] ^= 1 << offset % 8
        with pytest.raises(EvidenceRejected):
            verifier.verify(Evidence(Tee.SNP, bytes(forged)), Endorsements({need: vek}), Binding(None), at)
