"""The numbered checks (verifiers 5.3) on evidence of an Intel machine; TDREPORT; claims; settings."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import azure_vtpm
from kbs.attestation.verifiers.azure_vtpm.tdreport import parse_tdreport
from kbs.client.attesters.azure_vtpm import SoftwareAzTdx, tdreport
from kbs.client.attesters.intel import IntelValidities
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ConfigInvalid,
    EndorsementExpired,
    EndorsementMissing,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    InitDataMismatch,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce").digest()
INIT_DATA = hashlib.sha256(b"init data").digest()
ZEROS = bytes(48)


@cache
def attester(version: int = 2, quote: int = 4) -> SoftwareAzTdx:
    root = TestRoot()
    return SoftwareAzTdx(root, version=version, tdx=SoftwareTdx(root, version=quote))


def verify(
    body: Any, source: SoftwareAzTdx | None = None, binding: Binding | None = None, at: datetime = AT, **options: Any
) -> dict[str, Any]:
    source = source or attester()
    verifier = azure_vtpm.build_tdx(VerifierOptions({**source.options, **options}, source.anchors))
    evidence = Evidence(Tee.AZ_TDX_VTPM, body)
    given = verifier.endorsements_from(evidence, source.endorsements)
    (found,) = verifier.verify(evidence, given, binding or Binding(NONCE), at)
    return dict(found.claims)


def td_report(**changes: Any) -> dict[str, Any]:
    return {"report": changes}


HASHES = hashlib.sha384(b"x").digest(), hashlib.sha384(b"x").digest()
WRONG: dict[str, tuple[dict[str, Any], type[EvidenceRejected]]] = {
    "2 runtime data of another report": ({"variable_data": attester().vtpm.runtime_data(b"\1")}, BindingMismatch),
    "2 quote of other runtime data": ({"hardware_data": hashlib.sha256(b"x").digest()}, BindingMismatch),
    "2 upper half of report data": ({"hardware_data": hashlib.sha512(b"x").digest()}, BindingMismatch),
    "2 a TDREPORT said to be SNP's": ({"hcl": {"report_type": 2}}, EvidenceMalformed),
    "3 no AK": ({"runtime": {"keys": []}}, EvidenceMalformed),
    "4 another key": ({"quote": {"signer": attester().vtpm.ek}}, SignatureInvalid),
    "5 PCR 16 in the place of 8": ({"quote": {"selection": (*range(8), 16)}}, EvidenceMalformed),
    "6 another nonce": ({"nonce": bytes(48)}, BindingMismatch),
    "7 other values": ({"pcrs": attester().vtpm.pcrs(INIT_DATA)}, SignatureInvalid),
    "8 other user data": ({"user_data": bytes(64)}, BindingMismatch),
    "10 report data of the TDREPORT": (td_report(report_data=bytes(64)), BindingMismatch),
    "10 its upper half": (td_report(report_data=hashlib.sha512(b"x").digest()), BindingMismatch),
    "10 MRTD": (td_report(td={16: b"\1"}), TcbMismatch),
    "10 no MRTD": (td_report(td={16: ZEROS}), TcbMismatch),
    "10 attributes": (td_report(td={0: b"\1"}), TcbMismatch),
    "10 no attributes": (td_report(td={0: bytes(8)}), TcbMismatch),
    "10 XFAM": (td_report(td={8: b"\1"}), TcbMismatch),
    "10 MRCONFIGID": (td_report(td={64: b"\1"}), TcbMismatch),
    "10 MROWNER": (td_report(td={112: b"\1"}), TcbMismatch),
    "10 MROWNERCONFIG": (td_report(td={160: b"\1"}), TcbMismatch),
    "10 RTMR0": (td_report(td={208: b"\1"}), TcbMismatch),
    "10 RTMR3": (td_report(td={352: b"\1"}), TcbMismatch),
    "10 TCB SVN": (td_report(tcb={8: b"\1"}), TcbMismatch),
    "10 MRSEAM": (td_report(tcb={24: b"\1"}), TcbMismatch),
    "10 MRSIGNERSEAM": (td_report(tcb={72: b"\1"}), TcbMismatch),
    "10 SEAM attributes": (td_report(tcb={120: b"\1"}), TcbMismatch),
    "10 hash of the TCB": (td_report(hashes=(HASHES[0], bytes(48))), TcbMismatch),
    "10 hash of the TD": (td_report(hashes=(bytes(48), HASHES[1])), TcbMismatch),
    "10 TDREPORT of an enclave": (td_report(kind=bytes(4)), EvidenceVersionUnsupported),
    "10 TDREPORT of a subtype": (td_report(kind=b"\x81\1\0\0"), EvidenceVersionUnsupported),
    "10 TDREPORT of version 2": (td_report(kind=b"\x81\0\2\0"), EvidenceVersionUnsupported),
    "10 TDREPORT's reserved octet": (td_report(kind=b"\x81\0\0\1"), EvidenceMalformed),
    "10 reserved in the middle": (td_report(reserved=bytes(16) + b"\1"), EvidenceMalformed),
    "10 no quote": ({"td_quote": b"", "padding": b""}, EvidenceMalformed),
    "10 cut quote": ({"td_quote": bytes(600)}, EvidenceRejected),
    "10 quote with a tail": ({"padding": b"\0\1"}, EvidenceMalformed),
    "10 reserved attribute": ({"fields": {"td_attributes": 1 << 28 | 2}}, EvidenceMalformed),
}


@pytest.mark.parametrize(("changes", "error"), WRONG.values(), ids=WRONG)
def test_each_check_refuses_with_its_own_class(changes: dict[str, Any], error: type[EvidenceRejected]) -> None:
    with pytest.raises(error):
        verify(attester().evidence(NONCE, **changes))


@pytest.mark.parametrize("quote", [4, 5])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_version(version: int, quote: int) -> None:
    source = attester(version, quote)
    claims = verify(source.evidence(NONCE, INIT_DATA), source, Binding(NONCE, INIT_DATA))
    assert (claims["evidence_version"], claims["tdreport_complete"]) == (version, True)
    assert claims["quote"]["header"]["version"] == f"0{quote}00"
    if version < 2:
        with pytest.raises(EvidenceVersionUnsupported):
            verify(source.evidence(NONCE), source, az_min_evidence_version=2)


def test_td_1_5_is_compared_too() -> None:
    source = attester(quote=5)
    with pytest.raises(TcbMismatch):  # TEE_TCB_SVN2
        verify(source.evidence(NONCE, report={"tcb": {128: b"\1"}}), source)
    with pytest.raises(TcbMismatch):  # SERVTD_HASH
        verify(source.evidence(NONCE, report={"td": {400: b"\1"}}), source)
    with pytest.raises(SignerNotTrusted):
        verify(source.evidence(NONCE, fields={"mr_servicetd": b"\1" * 48}), source)


@pytest.mark.parametrize(
    "changes",
    [
        {"mac": bytes(32)},
        {"hashes": (bytes(48), bytes(48))},
        {"td": {8: bytes(8)}},
        {"td": {208: ZEROS}},
        {"tcb": {8: bytes(16)}},
        {"tcb": {24: ZEROS}},
    ],
)
def test_what_a_tdreport_leaves_out_is_told(changes: dict[str, Any]) -> None:
    """It proves nothing the quote does not; but it must not say anything else."""
    assert verify(attester().evidence(NONCE, report=changes))["tdreport_complete"] is False
    assert verify(attester().evidence(NONCE))["tdreport_complete"] is True


def test_quotes_of_others() -> None:
    other = SoftwareAzTdx(TestRoot(label="another Intel"))
    with pytest.raises((ChainInvalid, SignatureInvalid)):
        verify(other.evidence(NONCE), attester())
    with pytest.raises(BindingMismatch):
        verify(attester().evidence(NONCE, td_quote=attester().tdx.quote(NONCE)))


def test_init_data_is_pcr_8_and_not_mrconfigid() -> None:
    body = attester().evidence(NONCE, INIT_DATA)
    claims = verify(body, binding=Binding(NONCE, INIT_DATA))
    assert claims["init_data"] == hashlib.sha256(bytes(32) + INIT_DATA).hexdigest() == claims["tpm"]["pcr08"]
    assert claims["quote"]["body"]["mr_config_id"] == "00" * 48
    with pytest.raises(InitDataMismatch):
        verify(attester().evidence(NONCE), binding=Binding(NONCE, INIT_DATA))


def test_claims() -> None:
    fields = {"td_attributes": 0b1, "mr_td": b"\xd0" * 48}
    claims = verify(attester().evidence(NONCE, fields=fields, runtime={"secure_boot": False}))
    assert claims.items() >= {
        "tcb_status": "UpToDate", "collateral_expiration_status": "0", "report_data": NONCE.hex(),
        "init_data": "00" * 32, "binding": "checked", "revocation": "checked", "secure-boot": False,
        "trailing_bytes": 70, "evidence_version": 2,
    }.items()  # fmt: skip
    assert claims["td_attributes"].items() >= {"debug": True, "septve_disable": False, "migratable": False}.items()
    assert claims["quote"]["body"]["mr_td"] == "d0" * 48
    assert claims["quote"]["body"]["report_data"] != claims["report_data"]
    assert "uefi_event_logs" not in claims
    assert verify(attester().evidence(NONCE), binding=Binding(None))["binding"] == "not_checked"


def test_revocation() -> None:
    source = attester()
    evidence = Evidence(Tee.AZ_TDX_VTPM, source.evidence(NONCE))
    for options, expected in (
        ({}, {"revocation": "not_checked"}),
        ({"allow_unchecked_revocation": ["tdx"]}, {"revocation": "not_checked"}),
        ({"allow_unchecked_revocation": ["az-tdx-vtpm"]}, {"revocation": "not_checked", "revocation_waived": True}),
    ):
        verifier = azure_vtpm.build_tdx(VerifierOptions(options, source.anchors))
        given = verifier.endorsements_from(evidence, source.endorsements)
        bare = Endorsements({name: data for name, data in given.items.items() if "crl" not in name})
        (found,) = verifier.verify(evidence, bare, Binding(NONCE), AT)
        assert {k: v for k, v in found.claims.items() if k.startswith("revocation")} == expected


def test_collateral_is_required() -> None:
    verifier = azure_vtpm.build_tdx(VerifierOptions({}, attester().anchors))
    with pytest.raises(EndorsementMissing):
        verifier.verify(Evidence(Tee.AZ_TDX_VTPM, attester().evidence(NONCE)), Endorsements(), Binding(NONCE), AT)


@pytest.mark.parametrize("part", ["root", "ca", "pck", "tcb_signing", "root_crl", "pck_crl", "tcb_info", "qe_identity"])
def test_one_second_past_each_validity_is_refused(part: str) -> None:
    window = (AT - timedelta(days=1), AT + timedelta(days=1))
    root = TestRoot()
    source = SoftwareAzTdx(root, tdx=SoftwareTdx(root, validities=replace(IntelValidities(), **{part: window})))
    body = source.evidence(NONCE)
    for moment in window:
        assert verify(body, source, at=moment)
    for moment in (window[0] - timedelta(seconds=1), window[1] + timedelta(seconds=1)):
        with pytest.raises(EndorsementExpired):
            verify(body, source, at=moment)


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1}, {"snp_v2_product": "Milan"}, {"az_typed_claims": True}, {"az_min_evidence_version": 3},
        {"az_min_evidence_version": "0"}, {"allow_unchecked_revocation": "x"}, {"allow_trailing_bytes": 1},
        {"dcap_min_evaluation_number": "1"},
    ],
)  # fmt: skip
def test_unusable_options_are_refused_at_build(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        azure_vtpm.build_tdx(VerifierOptions(options))


def test_collateral_of_an_older_edition() -> None:
    assert verify(attester().evidence(NONCE), dcap_min_evaluation_number=1)
    with pytest.raises(TcbMismatch):
        verify(attester().evidence(NONCE), dcap_min_evaluation_number=10_000)


def test_what_needs_read_is_used_once_and_for_the_same_object_only() -> None:
    source = attester()
    verifier = azure_vtpm.build_tdx(VerifierOptions({}, source.anchors))
    good, other = (Evidence(Tee.AZ_TDX_VTPM, source.evidence(text)) for text in (NONCE, b"\2" * 48))
    given = verifier.endorsements_from(good, source.endorsements)
    verifier.needs(good)
    with pytest.raises(BindingMismatch):
        verifier.verify(other, given, Binding(NONCE), AT)
    verifier.needs(other)
    assert verifier.verify(good, given, Binding(NONCE), AT)


def test_a_thousand_damaged_ones_are_refused() -> None:
    """Octets flipped, cut and appended anywhere in HCL report and TD quote, and those of another good one put in."""
    random = Random(11)
    source = attester(version=0)
    verifier = azure_vtpm.build_tdx(VerifierOptions(source.options, source.anchors))
    good = source.evidence(NONCE, INIT_DATA, padding=b"")
    other = SoftwareAzTdx(version=0).evidence(NONCE, INIT_DATA, runtime={"secure_boot": False})
    given = verifier.endorsements_from(Evidence(Tee.AZ_TDX_VTPM, good), source.endorsements)
    binding = Binding(NONCE, INIT_DATA)
    (expected,) = verifier.verify(Evidence(Tee.AZ_TDX_VTPM, good), given, binding, AT)
    refused = 0
    for _ in range(1300):
        name = random.choice(["hcl_report", "td_quote"])
        values = list(good[name])
        match random.randrange(4):
            case 0:
                values[random.randrange(len(values))] ^= 1 << random.randrange(8)
            case 1:
                values = values[: random.randrange(len(values))]
            case 2:
                values += [random.randrange(1, 256)]
            case _:
                values = list(other[name])
        try:
            (found,) = verifier.verify(Evidence(Tee.AZ_TDX_VTPM, {**good, name: values}), given, binding, AT)
        except EvidenceRejected:
            refused += 1
        else:  # zeros behind the HCL report, CPUSVN or MAC of the TDREPORT
            assert found == expected
    assert refused > 1100


@given(st.binary(max_size=40) | st.integers(0, 1023).map(lambda size: tdreport(bytes(584))[:size]))
def test_any_octets_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(EvidenceRejected):
        parse_tdreport(raw)
