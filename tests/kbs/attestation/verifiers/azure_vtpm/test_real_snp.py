"""Evidence of real Azure VMs on AMD processors."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.sev.report import parse
from kbs.attestation.tpm.pcrs import extend
from kbs.attestation.tpm.quote import parse_quote
from kbs.attestation.tpm.signature import rsassa_sha256, verify_signature
from kbs.attestation.verifiers import azure_vtpm
from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType, check_bound, parse_hcl_report
from kbs.attestation.verifiers.azure_vtpm.runtime import parse_runtime_data
from kbs.errors import (
    BindingMismatch,
    EndorsementExpired,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
)
from kbs.protocol.tee import Tee

VECTORS = Path(__file__).parents[4] / "vectors" / "az-snp-vtpm"
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCES = {
    "v0": b"challenge",
    "v1": b"challenge",
    "v2": bytes.fromhex(
        "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"
    ),
    "genoa": bytes.fromhex(
        "0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f"
    ),
}
CLAIMS: dict[str, dict[str, Any]] = {
    "v0": {"product": "Milan", "evidence_version": 0, "reported_tcb_microcode": "219", "guest_svn": 10},
    "v1": {"product": "Milan", "evidence_version": 1, "policy_abi_minor": "31", "platform_tsme_enabled": "false"},
    "v2": {"product": "Milan", "evidence_version": 2, "secure-boot": True, "vmpl": 0, "guest_svn": 12},
    "genoa": {"product": "Genoa", "evidence_version": 0, "policy_debug_allowed": "false"},
}


def body(name: str) -> Any:
    return json.loads((VECTORS / f"evidence-{name}.json").read_text())


def verify(evidence: Any, binding: Binding, at: datetime = AT, **options: Any) -> dict[str, Any]:
    verifier = azure_vtpm.build_snp(VerifierOptions({"az_min_evidence_version": 0, **options}))
    (found,) = verifier.verify(Evidence(Tee.AZ_SNP_VTPM, evidence), Endorsements(), binding, at)
    return dict(found.claims)


@pytest.mark.parametrize("name", NONCES)
def test_real_evidence_is_accepted(name: str) -> None:
    claims = verify(body(name), Binding(NONCES[name]))
    assert claims.items() >= CLAIMS[name].items()
    assert claims["report_data"] == NONCES[name].hex()
    assert claims["revocation"] == "not_checked"
    assert base64.b64decode(claims["measurement"]).hex() == verify(
        body(name), Binding(None), az_typed_claims=True
    )["measurement"]  # fmt: skip


@pytest.mark.parametrize("name", ["v0", "v1", "genoa"])
def test_old_versions_need_the_option(name: str) -> None:
    verifier = azure_vtpm.build_snp(VerifierOptions())
    with pytest.raises(EvidenceVersionUnsupported):
        verifier.needs(Evidence(Tee.AZ_SNP_VTPM, body(name)))
    assert verify(body("v2"), Binding(NONCES["v2"]), az_min_evidence_version=2)


@pytest.mark.parametrize("name", NONCES)
def test_another_nonce_is_refused(name: str) -> None:
    for other in (NONCES[name] + b"\0", NONCES[name][:-1], b"", NONCES[name].ljust(64, b"\0")):
        with pytest.raises(BindingMismatch):
            verify(body(name), Binding(other))


def test_version_2_is_bound_twice() -> None:
    """The VM of version 1 has user data of zeros: relabelled, its hardware report is of no challenge."""
    with pytest.raises(BindingMismatch):
        verify(body("v1") | {"version": 2}, Binding(b"challenge"))


def test_init_data_of_the_genoa_guest() -> None:
    claims = verify(body("genoa"), Binding(NONCES["genoa"]))
    assert claims["init_data"].startswith("16f09f1e315b0b9b")
    assert claims["init_data"] != extend(bytes(32), bytes(32)).hex()
    with pytest.raises(InitDataMismatch):
        verify(body("genoa"), Binding(NONCES["genoa"], bytes(32)))


@pytest.mark.parametrize("at", [datetime(2024, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)])
def test_outside_the_certificates_life(at: datetime) -> None:
    with pytest.raises(EndorsementExpired):
        verify(body("v1"), Binding(NONCES["v1"]), at)


def test_without_a_certificate_the_same_is_asked_for_as_for_snp() -> None:
    evidence = Evidence(Tee.AZ_SNP_VTPM, body("v2") | {"vcek": None})
    verifier = azure_vtpm.build_snp(VerifierOptions())
    crl, vcek = verifier.needs(evidence)
    assert (crl.name, crl.required, vcek.required) == ("amd/crl/Milan", False, True)
    assert vcek.name.startswith("amd/vcek/Milan/2e0e62a0e6f39bc4")
    der = base64.b64encode(base64.urlsafe_b64decode(body("v2")["vcek"])).decode()
    given = verifier.endorsements_from(evidence, {"vcek": der})
    assert verifier.verify(evidence, given, Binding(NONCES["v2"]), AT)


def test_parts_of_evidence() -> None:
    hcl = parse_hcl_report((VECTORS / "hcl-report.bin").read_bytes(), ReportType.SNP)
    with pytest.raises(EvidenceVersionUnsupported):
        parse(hcl.hardware_report)  # version 2
    check_bound(hcl, hcl.hardware_report[0x50:0x90])
    runtime = parse_runtime_data(hcl.variable_data)
    assert runtime.secure_boot is True
    message, signature = ((VECTORS / f"tpm-quote.{part}").read_bytes() for part in ("msg", "sig"))
    assert parse_quote(message).extra_data == b"challenge"
    with pytest.raises(EvidenceRejected):  # of another machine
        verify_signature(runtime.attestation_key, rsassa_sha256(signature), message)


def mixed(one: dict[str, Any], other: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in set(one) & set(other) - {"version"}:
        yield {**one, name: other[name]}


def test_parts_of_two_good_ones_do_not_mix() -> None:
    pairs = [("v0", "genoa"), ("genoa", "v0"), ("v1", "v2"), ("v2", "v1")]
    found = [each for one, other in pairs for each in mixed(body(one), body(other))]
    assert len(found) == 12
    for each in found:
        with pytest.raises(EvidenceRejected):
            verify(each, Binding(None))


def test_raw_bytes_are_no_evidence() -> None:
    for raw in ((VECTORS / "hcl-report.bin").read_bytes(), b""):
        with pytest.raises(EvidenceMalformed):
            verify(raw, Binding(None))


def test_any_flipped_octet_of_real_evidence_is_refused() -> None:
    """All octets of the numbers' form, one bit each."""
    good = body("v0")
    assert verify(good, Binding(b"challenge"))
    verifier = azure_vtpm.build_snp(VerifierOptions({"az_min_evidence_version": 0}))
    lists = [good["report"], good["quote"]["message"], good["quote"]["signature"], *good["quote"]["pcrs"]]
    refused = 0
    for index, values in enumerate(lists):
        for offset in range(index % 3, len(values), 3):
            forged = copy.copy(values)
            forged[offset] ^= 1 << offset % 8
            changed = _with(good, index, forged)
            with pytest.raises(EvidenceRejected):
                verifier.verify(Evidence(Tee.AZ_SNP_VTPM, changed), Endorsements(), Binding(b"challenge"), AT)
            refused += 1
    assert refused > 1200


def _with(good: dict[str, Any], index: int, values: list[int]) -> dict[str, Any]:
    if index == 0:
        return {**good, "report": values}
    quote = dict(good["quote"])
    if index < 3:
        quote["message" if index == 1 else "signature"] = values
    else:
        quote["pcrs"] = [*quote["pcrs"][: index - 3], values, *quote["pcrs"][index - 2 :]]
    return {**good, "quote": quote}
