"""A real guest's evidence: a V1 report and its PEK. The certificates of its chip, HSK and CEK, are not at hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.attestation.hygon.certificates import Usage, parse_csv
from kbs.attestation.hygon.chain import pinned_root
from kbs.attestation.hygon.sm2 import is_signed_by
from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import csv
from kbs.attestation.verifiers.csv.checks import check_form, check_signature
from kbs.attestation.verifiers.csv.claims import claims_of
from kbs.attestation.verifiers.csv.evidence import read
from kbs.client.attesters.csv import SoftwareCsv
from kbs.errors import ChainInvalid, EndorsementMissing, SignatureInvalid
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NEED = "hygon/hsk-cek/KPA64911240507"
BODY = json.loads((Path(__file__).parents[4] / "vectors" / "csv" / "csv_evidence.json").read_text())


def test_its_report_is_signed_by_its_pek() -> None:
    presented = read(BODY)
    pek = parse_csv(presented.pek, Usage.PEK)
    check_form(presented.report)
    check_signature(presented.report, pek)
    assert presented.serial == "KPA64911240507"
    assert presented.report.sig_usage == Usage.PEK
    claims = claims_of(presented.report, Binding(None))
    assert claims["version"] == "1"
    assert claims["measure"] == "ae2a2cf1f41a485fa37bf9ae92f678783c59fbc79de7b5d237743d58f5538034"
    assert claims["anonce"] == "26d7c75d"
    assert claims["report_data"] == "00" * 64
    assert {name for name, bit in claims["policy"].items() if bit} == {"nodbg", "es", "csv3"}


def test_its_pek_names_chip_and_owner() -> None:
    pek = parse_csv(read(BODY).pek, Usage.PEK)
    assert [slot.usage for slot in pek.slots] == [Usage.CEK, Usage.OCA]
    assert pek.key.user_id == b"HYGON-SSD-PEK"


def test_its_chip_is_asked_for_and_missed() -> None:
    verifier = csv.build(VerifierOptions())
    evidence = Evidence(Tee.CSV, BODY)
    (need,) = verifier.needs(evidence)
    assert (need.name, need.required) == (NEED, True)
    with pytest.raises(EndorsementMissing):
        verifier.verify(evidence, Endorsements(), Binding(None), AT)


def test_a_make_believe_chain_does_not_do() -> None:
    forger = SoftwareCsv(serial="KPA64911240507")
    with pytest.raises(ChainInvalid):
        csv.build(VerifierOptions()).verify(
            Evidence(Tee.CSV, BODY), Endorsements({NEED: forger.hsk_cek}), Binding(None), AT
        )
    with pytest.raises(ChainInvalid):
        csv.build(VerifierOptions({}, forger.anchors)).verify(
            Evidence(Tee.CSV, BODY), Endorsements({NEED: forger.hsk_cek}), Binding(None), AT
        )


@pytest.mark.parametrize("offset", range(0, 180, 4))
def test_any_flipped_bit_of_the_report_is_noticed(offset: int) -> None:
    data = list(BODY["attestation_report"]["data"])
    data[offset] ^= 1 << offset % 8
    presented = read({**BODY, "attestation_report": {**BODY["attestation_report"], "data": data}})
    with pytest.raises(SignatureInvalid):
        check_signature(presented.report, parse_csv(presented.pek, Usage.PEK))


def test_the_real_root_signs_itself() -> None:
    root = pinned_root()
    assert is_signed_by(root.signed, root.signature, root.key)
