"""Runtime events in evidence with a TPM: the attestation agent's own log against the PCRs that a quote covers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Evidence, VerifierOptions
from kbs.attestation.verifiers import azure_vtpm, tpm
from kbs.client.attesters.azure_vtpm import SoftwareAzSnp, SoftwareAzTdx
from kbs.client.attesters.event_log import SoftwareEventLog
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import EventLogMalformed, EventLogMismatch, EvidenceMalformed

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
REPORT_DATA = hashlib.sha384(b"challenge and key").digest()
DOMAIN = "github.com/confidential-containers"
IMAGE = {"image": "registry.example/app:1", "digest": f"sha256:{'2' * 64}"}
CONTENT = '{"image":"registry.example/app:1", "digest":"sha256:' + "2" * 64 + '"}'


def agents_log(*registers: int) -> SoftwareEventLog:
    """The published log has one digest an entry, whatever its header announces; so has this one."""
    log = SoftwareEventLog(("sha256",))
    for register in registers:
        log.runtime(register, DOMAIN, "PullImage", CONTENT)
    return log


def on_azure(attester: SoftwareAzSnp | SoftwareAzTdx, log: SoftwareEventLog, sent: Any) -> dict[str, Any]:
    build = azure_vtpm.build_snp if isinstance(attester, SoftwareAzSnp) else azure_vtpm.build_tdx
    attester.vtpm.extended = log.registers("sha256", {event.register for event in log.events})
    verifier = build(VerifierOptions(attester.options, attester.anchors))
    evidence = Evidence(attester.tee, attester.evidence(REPORT_DATA) | {"cc_eventlog": sent})
    (found,) = verifier.verify(
        evidence, verifier.endorsements_from(evidence, attester.endorsements), Binding(REPORT_DATA), AT
    )
    return dict(found.claims)


def on_tpm(log: SoftwareEventLog, sent: Any, *, firmware: bool = False) -> dict[str, Any]:
    attester = SoftwareTpm(scheme="ecdsa")
    for index, value in log.registers("sha256", {event.register for event in log.events}).items():
        attester.bank.values[index] = value
    body = attester.evidence(REPORT_DATA, log=attester.event_log() if firmware else None) | {"cc_eventlog": sent}
    verifier = tpm.build(VerifierOptions(attester.options, attester.anchors))
    evidence = Evidence(attester.tee, body)
    (found,) = verifier.verify(evidence, verifier.endorsements_from(evidence, {}), Binding(REPORT_DATA), AT)
    return dict(found.claims)


Guest = Callable[[SoftwareEventLog, Any], dict[str, Any]]
GUESTS: dict[str, Guest] = {
    "az-snp-vtpm": lambda log, sent: on_azure(SoftwareAzSnp(), log, sent),
    "az-snp-vtpm version 0": lambda log, sent: on_azure(SoftwareAzSnp(version=0), log, sent),
    "az-tdx-vtpm": lambda log, sent: on_azure(SoftwareAzTdx(), log, sent),
    "tpm": on_tpm,
}
each_guest = pytest.mark.parametrize("guest", GUESTS.values(), ids=GUESTS)


def in_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@each_guest
def test_pulled_images_become_claims(guest: Guest) -> None:
    log = agents_log(17, 17)
    found = guest(log, in_base64(log.to_bytes()))
    event = {"index": 17, "domain": DOMAIN, "operation": "PullImage", "content": IMAGE}
    assert found["runtime_events"] == [event, event]
    assert found["event_log"]["registers"] == [{"index": 17, "events": 2, "recomputed": 2, "runtime_events": 2}]


@each_guest
def test_an_agent_that_is_set_to_another_pcr(guest: Guest) -> None:
    log = agents_log(18)
    found = guest(log, in_base64(log.to_bytes()))
    assert [register["index"] for register in found["event_log"]["registers"]] == [17, 18]
    assert [event["index"] for event in found["runtime_events"]] == [18]


@each_guest
def test_no_log_is_no_claim(guest: Guest) -> None:
    found = guest(agents_log(17), None)
    assert "runtime_events" not in found
    assert "event_log" not in found


@each_guest
def test_a_log_that_says_less_or_more_or_of_another_pcr(guest: Guest) -> None:
    """Less: also an empty one, and one of another PCR only; 17 is compared in any case."""
    quoted = agents_log(17, 17)
    for said in ([17], [], [17, 17, 17], [18, 18], [17, 17, 7], [17, 17, 8]):
        with pytest.raises(EventLogMismatch):
            guest(quoted, in_base64(agents_log(*said).to_bytes()))


@each_guest
@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (7, EvidenceMalformed),
        (["x"], EvidenceMalformed),
        ("no base64!", EvidenceMalformed),
        ("A" * (6 << 20), EvidenceMalformed),
        (in_base64(b"\x11"), EventLogMalformed),
        (in_base64(b"\x11\0\0\0\x04\0\0\0"), EventLogMalformed),
    ],
    ids=["a number", "a list", "no base64", "too long", "cut", "half an entry"],
)
def test_what_is_no_log(guest: Guest, sent: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        guest(agents_log(), sent)


def test_firmwares_log_and_the_agents() -> None:
    log = agents_log(17)
    found = on_tpm(log, in_base64(log.to_bytes()), firmware=True)
    assert [register["index"] for register in found["event_log"]["registers"]] == list(range(24))
    assert found["event_log"]["unlogged"] == []
    assert found["event_log"]["secure_boot"] is True
    assert [event["content"] for event in found["runtime_events"]] == [IMAGE]
    assert found["uefi_event_logs"][-1]["index"] == 17
    silent = on_tpm(log, None, firmware=True)
    assert silent["event_log"]["unlogged"] == [17]
