"""Evidence of a real Azure VM on an Intel processor."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kbs.attestation.model import Binding, Evidence, VerifierOptions
from kbs.attestation.verifiers import azure_vtpm
from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType, check_bound, parse_hcl_report
from kbs.attestation.verifiers.azure_vtpm.tdreport import parse_tdreport
from kbs.errors import BindingMismatch, EndorsementExpired, EndorsementMissing, EvidenceMalformed, EvidenceRejected
from kbs.protocol.tee import Tee

VECTORS = Path(__file__).parents[4] / "vectors" / "az-tdx-vtpm"
COLLATERAL = {"collateral": json.loads((VECTORS / "collateral.json").read_text())}
AT = datetime(2025, 2, 28, 12, tzinfo=UTC)
NONCE = b"challenge"
VERIFIER = azure_vtpm.build_tdx(VerifierOptions({"az_min_evidence_version": 0}))


def body(name: str) -> Any:
    return json.loads((VECTORS / f"evidence-{name}.json").read_text())


def verify(evidence: Any, binding: Binding, at: datetime = AT) -> dict[str, Any]:
    presented = Evidence(Tee.AZ_TDX_VTPM, evidence)
    (found,) = VERIFIER.verify(presented, VERIFIER.endorsements_from(presented, COLLATERAL), binding, at)
    return dict(found.claims)


@pytest.mark.parametrize("name", ["v0", "v1"])
def test_real_evidence_is_accepted_and_out_of_date(name: str) -> None:
    claims = verify(body(name), Binding(NONCE))
    assert claims.items() >= {
        "tcb_status": "OutOfDate", "platform_tcb_status": "OutOfDate", "tdx_module_tcb_status": "OutOfDate",
        "qe_tcb_status": "UpToDate", "tcb_eval_num": 17, "tcb_date": "2023-08-09T00:00:00Z", "secure-boot": True,
        "report_data": NONCE.hex(), "init_data": "00" * 32, "revocation": "checked", "tdreport_complete": True,
        "trailing_bytes": 70, "boot_measured": True, "evidence_version": int(name[1]),
    }.items()  # fmt: skip
    assert len(claims["advisory_ids"]) == 3
    assert claims["td_attributes"]["septve_disable"] is False  # the paravisor takes these exceptions
    assert claims["quote"]["body"]["td_attributes"] == "00" * 8


@pytest.mark.parametrize("name", ["v0", "v1"])
def test_version_2_is_bound_twice(name: str) -> None:
    with pytest.raises(EvidenceRejected):
        azure_vtpm.build_tdx(VerifierOptions()).needs(Evidence(Tee.AZ_TDX_VTPM, body(name)))
    for other in (b"challeng", b"challenge\0", b"", NONCE.ljust(64, b"\0")):
        with pytest.raises(BindingMismatch):
            verify(body(name), Binding(other))
    with pytest.raises(BindingMismatch):
        verify(body("v1") | {"version": 2}, Binding(NONCE))


@pytest.mark.parametrize("at", ["2025-02-13T03:50:40Z", "2025-03-15T03:39:01Z"])
def test_outside_the_collateral_s_life(at: str) -> None:
    with pytest.raises(EndorsementExpired):
        verify(body("v1"), Binding(NONCE), datetime.fromisoformat(at))


@pytest.mark.parametrize("at", ["2025-02-13T03:50:41Z", "2025-03-15T03:39:00Z"])
def test_at_the_ends_of_the_collateral_s_life(at: str) -> None:
    assert verify(body("v1"), Binding(NONCE), datetime.fromisoformat(at))


def test_needs_are_those_of_tdx() -> None:
    needs = VERIFIER.needs(Evidence(Tee.AZ_TDX_VTPM, body("v1")))
    assert {need.name for need in needs} == {
        "intel/tcb/tdx/00806f050000", "intel/qe-identity/tdx", "intel/pck-crl/platform", "intel/root-crl",
    }  # fmt: skip
    presented = Evidence(Tee.AZ_TDX_VTPM, body("v1"))
    with pytest.raises(EndorsementMissing):
        VERIFIER.verify(presented, VERIFIER.endorsements_from(presented, {}), Binding(NONCE), AT)


def test_padding_may_be_forbidden() -> None:
    verifier = azure_vtpm.build_tdx(VerifierOptions({"az_min_evidence_version": 0, "allow_trailing_bytes": False}))
    with pytest.raises(EvidenceMalformed):
        verifier.needs(Evidence(Tee.AZ_TDX_VTPM, body("v1")))


def test_parts_of_evidence() -> None:
    hcl = parse_hcl_report((VECTORS / "hcl-report.bin").read_bytes(), ReportType.TDX)
    report = parse_tdreport(hcl.hardware_report)
    check_bound(hcl, report.report_data)
    quote = (VECTORS / "td-quote.bin").read_bytes()
    assert quote == base64.urlsafe_b64decode(body("v1")["td_quote"])
    assert report.facts["mr_td"] == quote[48 + 136 : 48 + 184]


def test_any_damage_of_real_evidence_is_refused() -> None:
    """One bit in each of 500 places: HCL report, TPM quote and TD quote, zeros behind them included."""
    random = Random(7)
    good = body("v0")
    given = VERIFIER.endorsements_from(Evidence(Tee.AZ_TDX_VTPM, good), COLLATERAL)
    for _ in range(500):
        name = random.choice(["hcl_report", "td_quote", "message", "signature"])
        parent = good if name in good else good["tpm_quote"]
        forged = list(parent[name])
        offset = random.randrange(len(forged))
        if _is_unread(name, offset, good):
            continue
        forged[offset] ^= 1 << random.randrange(8)
        changed = {**good, name: forged} if name in good else {**good, "tpm_quote": {**parent, name: forged}}
        with pytest.raises(EvidenceRejected):
            VERIFIER.verify(Evidence(Tee.AZ_TDX_VTPM, changed), given, Binding(NONCE), AT)


def _is_unread(name: str, offset: int, good: Any) -> bool:
    """CPUSVN and MAC of the TDREPORT, which only its processor could check; the quote's copy of Intel's root."""
    if name == "hcl_report":
        return 48 <= offset < 64 or 256 <= offset < 288
    root = bytes(good["td_quote"]).rfind(b"-----BEGIN CERTIFICATE-----")
    return name == "td_quote" and root <= offset < len(good["td_quote"]) - 70
