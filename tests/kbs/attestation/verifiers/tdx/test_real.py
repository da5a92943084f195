"""Real evidence under Intel's real root at a time inside the validity of its collateral."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifiedClaims, VerifierOptions
from kbs.attestation.verifiers import tdx
from kbs.errors import (
    BindingMismatch,
    EndorsementExpired,
    EndorsementMissing,
    EventLogMismatch,
    EvidenceMalformed,
    EvidenceRejected,
    InitDataMismatch,
    TcbMismatch,
)
from kbs.protocol.tee import Tee
from tests.kbs.attestation.dcap.quotes import VECTORS, collateral, quote, time_of

REAL: dict[str, dict[str, Any]] = {  # set: claims that its reading must give
    "tdx_quote_4": {
        "tcb_status": "OutOfDate", "tcb_date": "2023-02-15T00:00:00Z", "tcb_eval_num": 18, "fmspc": "50806f000000",
        "tcb_out_of_date_since": "2024-11-13T00:00:00Z", "tcb_out_of_date_days": 504,
    },
    "tdx_quote_6": {
        "tcb_status": "OutOfDate", "tcb_date": "2018-01-04T00:00:00Z", "advisory_ids": [], "trailing_bytes": 70,
        "tdx_module_tcb_status": "UpToDate", "sgx_type": "Scalable with Integrity", "fmspc": "00a06d080000",
    },
    "phala_tdx_quote": {
        "tcb_status": "UpToDate", "advisory_ids": [], "tcb_out_of_date_days": 0, "tcb_eval_num": 17,
        "platform_instance_id": "d2cde8ff750793dc19703e6074848207", "latest_issue_date": "2025-06-19T10:32:27Z",
        "earliest_expiration_date": "2025-07-19T10:00:35Z",
    },
    "automata_v4_00806f": {
        "tcb_status": "OutOfDate", "tcb_date": "2023-08-09T00:00:00Z", "trailing_bytes": 3065,
        "advisory_ids": ["INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"],
    },
    "live_b0c06f": {"tcb_status": "UpToDate", "tcb_date": "2024-11-13T00:00:00Z", "tcb_eval_num": 18},
    "oe_v4_50806f": {"tcb_status": "OutOfDate", "tcb_date": "2023-02-15T00:00:00Z"},
}  # fmt: skip


def verify(name: str, body: Any = None, binding: Binding | None = None, **options: Any) -> VerifiedClaims:
    verifier = tdx.build(VerifierOptions(options))
    evidence = Evidence(Tee.TDX, quote(f"tdx/{name}") if body is None else body)
    given = verifier.endorsements_from(evidence, collateral(f"tdx/{name}"))
    (found,) = verifier.verify(evidence, given, binding or Binding(None), time_of(f"tdx/{name}"))
    return found


@pytest.mark.parametrize("name", REAL)
def test_real_quotes_are_accepted_in_both_forms(name: str) -> None:
    found = verify(name)
    assert found.claims.items() >= REAL[name].items()
    assert found.claims["revocation"] == "checked"
    assert found.claims["binding"] == "not_checked"
    encoded = base64.b64encode(quote(f"tdx/{name}")).decode()
    assert verify(name, {"quote": encoded, "cc_eventlog": None}) == found


@pytest.mark.parametrize("name", ["tdx_quote_5", "azure_v5_no_tcb_level"])
def test_platforms_below_every_level_are_refused(name: str) -> None:
    with pytest.raises(TcbMismatch, match="no TCB level"):
        verify(name)


@pytest.mark.parametrize("name", ["phala_tdx_quote", "automata_v4_00806f", "tdx_quote_6", "live_b0c06f"])
def test_padding_can_be_refused(name: str) -> None:
    assert verify(name).claims["trailing_bytes"] > 0
    with pytest.raises(EvidenceMalformed, match="behind its signature section"):
        verify(name, allow_trailing_bytes=False)


def test_claims_are_those_of_the_reference() -> None:
    expected = json.loads((VECTORS / "tdx/tdx_quote_4.claims.json").read_text())
    claims = dict(verify("tdx_quote_4").claims)
    attributes = claims.pop("td_attributes")
    assert attributes.items() >= expected.pop("td_attributes").items()
    assert attributes["debug"] is True
    assert claims.items() >= expected.items()


def test_a_clear_sept_ve_disable_is_told_and_can_be_waived() -> None:
    found = verify("oe_v4_50806f").claims
    assert found["td_attributes"]["septve_disable"] is False
    assert "septve_waived" not in found
    assert verify("oe_v4_50806f", tdx_allow_sept_ve=True).claims["septve_waived"] is True
    assert "septve_waived" not in verify("tdx_quote_4", tdx_allow_sept_ve=True).claims


@pytest.mark.parametrize("name", REAL)
def test_outside_the_validity_of_the_collateral_it_is_refused(name: str) -> None:
    verifier = tdx.build(VerifierOptions())
    evidence = Evidence(Tee.TDX, quote(f"tdx/{name}"))
    given = verifier.endorsements_from(evidence, {"collateral": collateral(f"tdx/{name}")})
    for days in (-60, 60):
        with pytest.raises(EndorsementExpired):
            verifier.verify(evidence, given, Binding(None), time_of(f"tdx/{name}") + timedelta(days=days))


def evidence_json(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / f"tdx/{name}.evidence.json").read_text())
    return document


def test_a_real_event_log_replays() -> None:
    claims = verify("live_b0c06f", evidence_json("live_b0c06f")).claims
    assert claims["event_log"]["unlogged"] == []
    assert len(claims["uefi_event_logs"]) > 10
    assert claims.items() >= REAL["live_b0c06f"].items()


def test_the_log_of_another_boot_is_refused() -> None:
    with pytest.raises(EventLogMismatch):
        verify("live_b0c06f", evidence_json("live_b0c06f.wronglog"))


def test_a_log_can_be_required() -> None:
    with pytest.raises(EventLogMismatch):
        verify("live_b0c06f", tdx_require_event_log=True, allow_trailing_bytes=True)
    found = verify("live_b0c06f", evidence_json("live_b0c06f"), tdx_require_event_log=True, allow_trailing_bytes=True)
    assert "uefi_event_logs" in found.claims


def test_init_data_is_bound() -> None:
    found = verify("tdx_quote_6")
    init_data = bytes.fromhex(found.claims["init_data"])
    assert any(init_data)
    assert verify("tdx_quote_6", binding=Binding(None, init_data)).claims["init_data"] == init_data.hex()
    for other in (init_data[:32], init_data[:31], bytes(48)):
        with pytest.raises(InitDataMismatch):
            verify("tdx_quote_6", binding=Binding(None, other))
    with pytest.raises(BindingMismatch):
        verify("tdx_quote_6", binding=Binding(bytes(47) + b"\1"))


def test_a_report_of_the_guest_is_no_quote() -> None:
    verifier = tdx.build(VerifierOptions())
    with pytest.raises(EvidenceRejected):
        verifier.needs(Evidence(Tee.TDX, (VECTORS / "tdx/guest_tdreport.bin").read_bytes()))


def test_needed_collateral_is_named_for_the_platform() -> None:
    verifier = tdx.build(VerifierOptions())
    evidence = Evidence(Tee.TDX, quote("tdx/phala_tdx_quote"))
    assert [(need.name, need.required) for need in verifier.needs(evidence)] == [
        ("intel/tcb/tdx/b0c06f000000", True),
        ("intel/qe-identity/tdx", True),
        ("intel/pck-crl/platform", False),
        ("intel/root-crl", False),
    ]
    with pytest.raises(EndorsementMissing):
        verifier.verify(evidence, Endorsements(), Binding(None), time_of("tdx/phala_tdx_quote"))


@pytest.mark.parametrize("name", ["tdx_quote_4", "phala_tdx_quote"])
def test_any_flipped_byte_of_a_real_quote_is_refused(name: str) -> None:
    """But for what nobody needs: the root that the quote carries, which is no anchor."""
    verifier = tdx.build(VerifierOptions())
    good = quote(f"tdx/{name}")
    given = verifier.endorsements_from(Evidence(Tee.TDX, good), collateral(f"tdx/{name}"))
    at = time_of(f"tdx/{name}")
    (expected,) = verifier.verify(Evidence(Tee.TDX, good), given, Binding(None), at)
    first_certificate = good.index(b"-----BEGIN")
    third_certificate = good.rindex(b"-----BEGIN")
    unsigned = 0
    for offset in [*range(first_certificate), *range(first_certificate, len(good), 5)]:
        forged = bytearray(good)
        forged[offset] ^= 1 << offset % 8
        try:
            (found,) = verifier.verify(Evidence(Tee.TDX, bytes(forged)), given, Binding(None), at)
        except EvidenceRejected:
            continue
        unsigned += 1
        assert found == expected
        assert offset >= third_certificate, offset
    assert unsigned > 0
