"""Real evidence under Intel's real root at a time inside the validity of its collateral."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.dcap import QuoteVerifier, parse_quote, pinned_root
from kbs.attestation.dcap.pck import verify_pck_chain
from kbs.attestation.model import Binding, Endorsements, Evidence, VerifiedClaims, VerifierOptions
from kbs.attestation.verifiers import sgx, tdx
from kbs.attestation.x509 import PathVerifier
from kbs.errors import EndorsementMissing, EvidenceMalformed, EvidenceVersionUnsupported
from kbs.protocol.tee import Tee
from tests.kbs.attestation.dcap.quotes import VECTORS, collateral, quote, time_of

MID_2023 = datetime(2023, 6, 15, 12, tzinfo=UTC)
REAL: dict[str, dict[str, Any]] = {  # set: claims that its reading must give
    "occlum_quote": {"tcb_status": "OutOfDate", "tcb_date": "2021-11-10T00:00:00Z", "debug": True, "tcb_eval_num": 17},
    "phala_sgx_quote": {
        "tcb_status": "ConfigurationAndSWHardeningNeeded", "tcb_date": "2024-03-13T00:00:00Z", "sgx_type": "Standard",
        "advisory_ids": ["INTEL-SA-00289", "INTEL-SA-00615"], "debug": False, "fmspc": "00a067110000",
        "tcb_out_of_date_days": 0,
    },
    "automata_v3": {
        "tcb_status": "SWHardeningNeeded", "tcb_date": "2024-03-13T00:00:00Z", "advisory_ids": ["INTEL-SA-00615"],
        "fmspc": "00606a000000", "debug": False, "is_smt_enabled": False,
    },
}  # fmt: skip
FORTANIX = "fortanix_chain_order"


def verify(name: str, body: Any = None) -> VerifiedClaims:
    verifier = sgx.build(VerifierOptions())
    evidence = Evidence(Tee.SGX, quote(f"sgx/{name}") if body is None else body)
    given = verifier.endorsements_from(evidence, collateral(f"sgx/{name}"))
    (found,) = verifier.verify(evidence, given, Binding(None), time_of(f"sgx/{name}"))
    return found


@pytest.mark.parametrize("name", REAL)
def test_real_quotes_are_accepted_in_both_forms(name: str) -> None:
    found = verify(name)
    assert found.claims.items() >= REAL[name].items()
    assert found.claims["revocation"] == "checked"
    assert verify(name, {"quote": base64.b64encode(quote(f"sgx/{name}")).decode()}) == found


def test_claims_of_a_real_quote() -> None:
    claims = verify("phala_sgx_quote").claims
    body = claims["body"]
    assert body["attributes.flags"] == "0500000000000000"
    assert body["attributes.xfrm"] == "e700000000000000"
    assert body["mr_enclave"].startswith("33d8736db756ed49")
    assert body["mr_signer"].startswith("815f42f11cf64430")
    assert (body["isv_prod_id"], body["isv_svn"]) == ("0000", "0000")
    assert claims["report_data"] == body["report_data"]
    assert bytes.fromhex(claims["report_data"]).startswith(b"Hello, w")
    assert claims["header"] == {
        "version": "0300", "att_key_type": "0200", "att_key_data_0": "00000000", "qe_svn": "0a00", "pce_svn": "0f00",
        "vendor_id": "939a7233f79c4ca9940a0db3957f0607", "user_data": claims["header"]["user_data"],
    }  # fmt: skip
    assert "platform_instance_id" not in claims
    assert "is_smt_enabled" not in claims


def test_a_chain_in_another_order_leads_to_the_root() -> None:
    """Leaf, root, CA; and the root is its first edition, valid to 2033, which is not the pinned one."""
    data = parse_quote((VECTORS / f"sgx/{FORTANIX}.bin").read_bytes()).pck_chain
    found = verify_pck_chain(data, PathVerifier((pinned_root(),), max_length=3), MID_2023)
    assert found.path.certificates[2] == pinned_root()
    assert found.platform.sgx_type == "Standard"


@pytest.mark.parametrize("name", [FORTANIX, "fortanix_corrupted"])
def test_without_collateral_it_is_refused(name: str) -> None:
    """Nobody kept the collateral of 2023. That the corrupted one fails: tests of the core, where it can be made."""
    verifier = sgx.build(VerifierOptions())
    evidence = Evidence(Tee.SGX, (VECTORS / f"sgx/{name}.bin").read_bytes())
    assert verifier.needs(evidence)[2].name == "intel/pck-crl/processor"
    with pytest.raises(EndorsementMissing):
        verifier.verify(evidence, Endorsements(), Binding(None), MID_2023)


def test_an_encrypted_ppid_is_not_supported() -> None:
    verifier = sgx.build(VerifierOptions())
    evidence = Evidence(Tee.SGX, (VECTORS / "sgx/fortanix_ppid_rsa3072.bin").read_bytes())
    with pytest.raises(EvidenceVersionUnsupported):
        verifier.needs(evidence)


def test_quotes_are_not_taken_for_another_tee() -> None:
    with pytest.raises(EvidenceMalformed):
        sgx.build(VerifierOptions()).needs(Evidence(Tee.SGX, quote("tdx/tdx_quote_4")))
    with pytest.raises(EvidenceMalformed):
        tdx.build(VerifierOptions()).needs(Evidence(Tee.TDX, quote("sgx/automata_v3")))


def test_collateral_of_another_platform_is_not_looked_at() -> None:
    verifier = QuoteVerifier(pinned_root())
    given = verifier.endorsements_from(parse_quote(quote("sgx/automata_v3")), collateral("sgx/automata_v3"))
    evidence = Evidence(Tee.SGX, quote("sgx/phala_sgx_quote"))
    with pytest.raises(EndorsementMissing):
        sgx.build(VerifierOptions()).verify(evidence, given, Binding(None), time_of("sgx/phala_sgx_quote"))
