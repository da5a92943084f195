"""The CSV verifier on reports made in software: each check, each form, each thing that may be missing."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import csv
from kbs.attestation.verifiers.csv.report import EXTENDED_MAGIC, parse
from kbs.client.attesters.csv import ANONCE, SoftwareCsv, masked
from kbs.client.attesters.event_log import ACTION, confidential_boot
from kbs.client.attesters.hygon import CEK, INVALID, OCA, PEK, csv_certificate
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    ChainInvalid,
    ConfigInvalid,
    EndorsementMissing,
    EventLogMalformed,
    EventLogMismatch,
    EvidenceMalformed,
    EvidenceRejected,
    EvidenceVersionUnsupported,
    SignatureInvalid,
    TcbMismatch,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce and key").digest()
INIT_DATA = hashlib.sha256(b"init data").digest()
NAME = "hygon/hsk-cek/TESTSN00000001"
ROOT = TestRoot()
CHIPS = {version: SoftwareCsv(ROOT, version=version) for version in (1, 2, 3)}
OTHER = SoftwareCsv(ROOT, serial="TESTSN00000002")
STRANGER = SoftwareCsv()
VERIFIER = csv.build(VerifierOptions({}, CHIPS[1].anchors))
SERVED = Endorsements({NAME: CHIPS[1].hsk_cek})


def claims(body: Any, endorsements: Endorsements = SERVED, binding: Binding | None = None) -> dict[str, Any]:
    (found,) = VERIFIER.verify(Evidence(Tee.CSV, body), endorsements, binding or Binding(NONCE, INIT_DATA), AT)
    assert (found.tee, found.device_class) == (Tee.CSV, "cpu")
    return dict(found.claims)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_claims(version: int) -> None:
    found = claims(CHIPS[version].evidence(NONCE, INIT_DATA))
    expected = {
        "version": str(version),
        "policy": {"nodbg": 1, "noks": 0, "es": 1, "nosend": 1, "domain": 0, "csv": 1, "csv3": 1, "asid_reuse": 0,
                   "hsk_version": 0, "cek_version": 0, "api_major": 3, "api_minor": 2},
        "user_pubkey_digest": "11" * 32,
        "vm_id": "22" * 16,
        "vm_version": "33" * 16,
        "report_data": NONCE.hex() + "00" * 16,
        "mnonce": "44" * 16,
        "measure": bytes(range(0xA0, 0xC0)).hex(),
        "sig_algo": "04000000",
        "serial_number": "TESTSN00000001",
        "revocation": "not_applicable",
        "binding": "checked",
    }  # fmt: skip
    assert found.items() >= expected.items()
    assert ("anonce" in found, "sig_usage" in found, "rtmr1" in found) == (version == 1, version > 1, version > 1)
    if version == 1:
        assert found["anonce"] == ANONCE.hex()
        return
    assert (found["build"], found["rtmr_version"], found["sig_usage"]) == (2000, 1, "02100000")
    assert found["rtmr0"] == found["measure"]
    assert [found[f"rtmr{index}"] for index in range(1, 5)] == [each.hex() for each in CHIPS[2].log.rtmrs()]
    assert len(found["reserved1"]) == 2 * (656 if version == 2 else 592)
    assert ("host_data" in found) is (version == 3)


@pytest.mark.parametrize(("version", "masks"), [(1, False), (1, True), (2, False)])
def test_the_signer_block_may_be_masked_in_v1(version: int, masks: bool) -> None:
    assert claims(CHIPS[version].evidence(NONCE, masks_signer=masks))["serial_number"] == "TESTSN00000001"


def test_a_masked_signer_block_is_no_form_of_v2() -> None:
    with pytest.raises(ChainInvalid):
        claims(CHIPS[2].evidence(NONCE, masks_signer=True))


def test_v1_in_an_extended_envelope() -> None:
    """Newer guests ask for an extended report and may get a V1 one: flags say so."""
    body = CHIPS[1].evidence(NONCE, magic=b"ATTESTATION_EXT\0", flags=0)
    assert claims(body) == claims(CHIPS[1].evidence(NONCE))


def test_policy_bits() -> None:
    found = claims(CHIPS[2].evidence(NONCE, policy=0xFEDC_BA92))
    assert found["policy"] == {
        "nodbg": 0, "noks": 1, "es": 0, "nosend": 0, "domain": 1, "csv": 0, "csv3": 0, "asid_reuse": 1,
        "hsk_version": 0xA, "cek_version": 0xB, "api_major": 0xDC, "api_minor": 0xFE,
    }  # fmt: skip


WRONG: dict[str, tuple[type[EvidenceRejected], Callable[[SoftwareCsv], Any]]] = {
    "other report data": (BindingMismatch, lambda chip: chip.evidence(NONCE[:-1] + b"\0")),
    "something behind the digest": (BindingMismatch, lambda chip: chip.evidence(NONCE.ljust(63, b"\0") + b"\1")),
    "signed by another key": (SignatureInvalid, lambda chip: chip.evidence(NONCE, signer=OTHER.pek)),
    "signed with another user id": (
        SignatureInvalid,
        lambda chip: chip.evidence(NONCE, signer=type(chip.pek)(chip.pek.private, chip.pek.point, b"HYGON-SSD-CEK")),
    ),
    "measurement changed": (SignatureInvalid, lambda chip: chip.evidence(NONCE, after={150: b"\0"})),
    "policy changed": (SignatureInvalid, lambda chip: chip.evidence(NONCE, after={176: b"\0"})),
    "of another chip": (TcbMismatch, lambda chip: chip.evidence(NONCE, serial=b"TESTSN00000002")),
    "serial number of another chip in the report": (
        TcbMismatch,
        lambda chip: chip.evidence(NONCE, signer_serial=b"TESTSN00000002"),
    ),
    "something behind the serial number": (
        EvidenceMalformed,
        lambda chip: chip.evidence(NONCE, serial=b"TESTSN00000001\0x", signer_serial=b"TESTSN00000001\0x"),
    ),
    "no serial number": (EvidenceMalformed, lambda chip: chip.evidence(NONCE, serial=b"")),
    "another PEK beside the report": (
        ChainInvalid,
        lambda chip: (
            chip.evidence(NONCE, pek=OTHER.pek_certificate())
            | {"attestation_report": chip.evidence(NONCE)["attestation_report"]}
        ),
    ),
    "another PEK in the report": (
        ChainInvalid,
        lambda chip: (
            chip.evidence(NONCE)
            | {"attestation_report": chip.evidence(NONCE, pek=OTHER.pek_certificate())["attestation_report"]}
        ),
    ),
    "PEK of another chip": (
        ChainInvalid,
        lambda chip: chip.evidence(NONCE, pek=OTHER.pek_certificate(), signer=OTHER.pek),
    ),
    "PEK of another vendor": (
        ChainInvalid,
        lambda chip: chip.evidence(NONCE, pek=STRANGER.pek_certificate(), signer=STRANGER.pek),
    ),
    "a CEK for a PEK": (
        ChainInvalid,
        lambda chip: chip.evidence(NONCE, pek=chip.hsk_cek[832:], signer=chip.vendor.cek(chip.serial)),
    ),
    "PEK signed by its owner": (
        ChainInvalid,
        lambda chip: chip.evidence(NONCE, pek=csv_certificate(PEK, chip.pek, {CEK: OTHER.pek, OCA: OTHER.pek})),
    ),
    "sig_usage of a PDH": (EvidenceVersionUnsupported, lambda chip: chip.evidence(NONCE, sig_usage=0x1003)),
    "sig_algo of RSA": (EvidenceVersionUnsupported, lambda chip: chip.evidence(NONCE, sig_algo=1)),
    "unknown magic": (EvidenceVersionUnsupported, lambda chip: chip.evidence(NONCE, magic=b"ATTESTATION_EXT!")),
}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", WRONG)
def test_refusals(name: str, version: int) -> None:
    expected, make = WRONG[name]
    with pytest.raises(expected):
        claims(make(CHIPS[version]))


def test_sig_usage_as_some_firmware_leaves_it() -> None:
    assert claims(CHIPS[2].evidence(NONCE, sig_usage=INVALID))["sig_usage"] == "00100000"
    assert "sig_usage" not in claims(CHIPS[1].evidence(NONCE, sig_usage=INVALID))


@pytest.mark.parametrize("flags", [2, 4, 5, 0x80000001, (1 << 32) - 1])
def test_flags_of_no_known_version_are_refused(flags: int) -> None:
    with pytest.raises(EvidenceVersionUnsupported):
        claims(CHIPS[2].evidence(NONCE, flags=flags))


def test_a_report_is_not_read_as_one_of_another_version() -> None:
    """Magic and flags are not signed."""
    for version, flags, magic in ((2, 0, None), (2, 0, bytes(16)), (3, 0, None), (1, 1, b"ATTESTATION_EXT\0")):
        with pytest.raises(EvidenceRejected):
            claims(CHIPS[version].evidence(NONCE, flags=flags, magic=magic))
    with pytest.raises(EvidenceMalformed):
        claims(CHIPS[3].evidence(NONCE, INIT_DATA, flags=1))  # host data hidden among reserved bytes
    assert claims(CHIPS[2].evidence(NONCE, flags=3)) == claims(CHIPS[2].evidence(NONCE))


def shifted(body: dict[str, Any], difference: bytes) -> dict[str, Any]:
    """A V1 report whose words are all changed at once, without breaking its signature."""
    changed = copy.deepcopy(body)
    data = changed["attestation_report"]["data"]
    data[188:192] = list(masked(bytes(data[188:192]), difference))
    data[180:188] = list(masked(bytes(data[180:188]), difference))  # usage and algorithm are not signed
    return changed


def test_the_unsigned_mask_of_v1_moves_all_fields_at_once() -> None:
    """The format allows it: with the right report data the measurement is wrong, and the other way round."""
    difference = bytes((1, 0, 0, 0))
    good = CHIPS[1].evidence(NONCE, policy=0x6C)
    with pytest.raises(BindingMismatch):
        claims(shifted(good, difference))
    prepared = CHIPS[1].evidence(masked(NONCE.ljust(64, b"\0"), difference), policy=0x6C)
    found = claims(shifted(prepared, difference))
    assert found["policy"]["nodbg"] == 1
    assert found["measure"] == masked(bytes(range(0xA0, 0xC0)), difference).hex()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_minimum_version(version: int) -> None:
    verifier = csv.build(VerifierOptions({"csv_min_report_version": 2}, CHIPS[1].anchors))
    evidence = Evidence(Tee.CSV, CHIPS[version].evidence(NONCE))
    if version > 1:
        assert verifier.verify(evidence, SERVED, Binding(NONCE), AT)
        return
    for step in (verifier.needs, lambda given: verifier.verify(given, SERVED, Binding(NONCE), AT)):
        with pytest.raises(EvidenceVersionUnsupported):
            step(evidence)


@pytest.mark.parametrize("options", [{"x": 1}, {"csv_min_report_version": 3}, {"csv_min_report_version": True}])
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        csv.build(VerifierOptions(options))


def test_rtmr0_is_the_measurement() -> None:
    with pytest.raises(TcbMismatch):
        claims(CHIPS[2].evidence(NONCE, rtmr0=bytes(32)))


# --- init data --------------------------------------------------------------------------------------------------------


def test_host_data_of_v3_binds_init_data() -> None:
    assert claims(CHIPS[3].evidence(NONCE, INIT_DATA))["init_data"] == INIT_DATA.hex() + "00" * 32


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("init_data", [None, b"", INIT_DATA, INIT_DATA[:-1]])
def test_nothing_else_does(version: int, init_data: bytes | None) -> None:
    """No claim `init_data`, so policies do not see what a document says that nothing binds."""
    found = claims(CHIPS[version].evidence(NONCE, b"\x66" * 32), binding=Binding(NONCE, init_data))
    assert "init_data" not in found


# --- certificates -----------------------------------------------------------------------------------------------------


def test_needs() -> None:
    bringing = SoftwareCsv(ROOT, brings_chain=True)
    (need,) = VERIFIER.needs(Evidence(Tee.CSV, CHIPS[2].evidence(NONCE)))
    (waived,) = VERIFIER.needs(Evidence(Tee.CSV, bringing.evidence(NONCE)))
    assert (need.name, need.required) == (NAME, True)
    assert (waived.name, waived.required) == (NAME, False)


def test_evidence_that_brings_its_chain_names_no_verified_serial_number() -> None:
    body = SoftwareCsv(ROOT, brings_chain=True).evidence(NONCE)
    alone, confirmed = claims(body, Endorsements()), claims(body)
    assert alone["unverified_serial_number"] == confirmed["serial_number"] == "TESTSN00000001"
    assert "serial_number" not in alone
    assert "unverified_serial_number" not in confirmed


def test_what_the_vendor_serves_goes_first() -> None:
    """A guest cannot pass for a chip by its serial number, whatever chain it brings."""
    impostor = SoftwareCsv(ROOT, serial="TESTSN00000002", brings_chain=True)
    body = impostor.evidence(NONCE, serial=b"TESTSN00000001", signer_serial=b"TESTSN00000001")
    assert claims(body, Endorsements())["unverified_serial_number"] == "TESTSN00000001"
    with pytest.raises(ChainInvalid):
        claims(body)


def test_without_certificates_it_is_refused() -> None:
    for given in (Endorsements(), Endorsements({"hygon/hsk-cek/TESTSN00000002": CHIPS[1].hsk_cek})):
        with pytest.raises(EndorsementMissing):
            claims(CHIPS[2].evidence(NONCE), given)


@pytest.mark.parametrize(
    "pair",
    [b"", CHIPS[1].hsk_cek[:-1], OTHER.hsk_cek, STRANGER.hsk_cek, CHIPS[1].hsk_cek[:832] + STRANGER.hsk_cek[832:]],
)
def test_wrong_certificates_are_refused(pair: bytes) -> None:
    with pytest.raises(ChainInvalid):
        claims(CHIPS[2].evidence(NONCE), Endorsements({NAME: pair}))
    if len(pair) == len(CHIPS[1].hsk_cek):
        with pytest.raises(ChainInvalid):
            claims(SoftwareCsv(ROOT, brings_chain=True).evidence(NONCE, hsk_cek=pair), Endorsements())


def test_endorsements_given_by_hand() -> None:
    evidence = Evidence(Tee.CSV, CHIPS[2].evidence(NONCE))
    text = base64.b64encode(CHIPS[2].hsk_cek).decode()
    assert VERIFIER.endorsements_from(evidence, {"hsk_cek": text, "other": 1}) == SERVED
    assert VERIFIER.endorsements_from(evidence, {}) == Endorsements()
    unusable: tuple[Any, ...] = (None, 1, [], "!", "é")
    for wrong in unusable:
        with pytest.raises(EvidenceMalformed):
            VERIFIER.endorsements_from(evidence, {"hsk_cek": wrong})


# --- event log --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
def test_a_log_that_replays_becomes_claims(version: int) -> None:
    found = claims(CHIPS[version].evidence(NONCE))
    assert len(found["uefi_event_logs"]) == len(CHIPS[version].log.events)
    assert found["uefi_event_logs"][0]["digests"][0]["alg"] == "SM3"
    assert found["event_log"]["secure_boot"] is True


def test_v1_covers_no_log() -> None:
    for log in (b"", None, b"garbage"):
        assert "uefi_event_logs" not in claims(CHIPS[1].evidence(NONCE, log=log))


def test_without_a_log_there_are_no_claims_of_one() -> None:
    found = claims(CHIPS[2].evidence(NONCE, log=None))
    assert not {"uefi_event_logs", "event_log"} & set(found)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_empty_challenge_is_no_challenge(version: int) -> None:
    """Zeros in the report would be right for it, and zeros are what a report has that answers nothing."""
    with pytest.raises(BindingMismatch):
        claims(CHIPS[version].evidence(b""), binding=Binding(b""))


@pytest.mark.parametrize("size", [0, 0x490, 4095, 4097])
def test_a_report_is_one_page(size: int) -> None:
    for magic, flags in ((bytes(16), 0), (EXTENDED_MAGIC, 1), (EXTENDED_MAGIC, 3)):
        with pytest.raises(EvidenceMalformed):
            parse(magic, flags, bytes(size))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_empty_log_is_none(version: int) -> None:
    """Guests send what they find where the log should be; a policy that wants a log sees that there is none."""
    found = claims(CHIPS[version].evidence(NONCE) | {"cc_eventlog": ""})
    assert not {"uefi_event_logs", "event_log"} & set(found)


def test_a_log_of_something_else_is_refused() -> None:
    longer = confidential_boot("sm3")
    longer.measure(3, ACTION, b"one more")
    for log in (longer, confidential_boot("sm3", kernel=b"another")):
        with pytest.raises(EventLogMismatch):
            claims(CHIPS[2].evidence(NONCE, log=log.to_bytes()))
    for raw in (b"\0", CHIPS[2].log.to_bytes()[:-20], confidential_boot("sha256").to_bytes()):
        with pytest.raises(EventLogMalformed):
            claims(CHIPS[2].evidence(NONCE, log=raw))
    for register in range(1, 5):
        changes: dict[str, Any] = {f"rtmr{register}": b"\7" * 32}
        with pytest.raises(EventLogMismatch):
            claims(CHIPS[2].evidence(NONCE, **changes))


@pytest.mark.parametrize("value", [1, [], {}, True, "not base64!", "A" * (6 << 20) + "AAAA"])
def test_a_log_is_base64(value: Any) -> None:
    with pytest.raises(EvidenceMalformed):
        claims(CHIPS[2].evidence(NONCE) | {"cc_eventlog": value})
