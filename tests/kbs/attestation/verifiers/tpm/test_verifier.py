"""What a quote must hold, beyond the contract of all verifiers: the gaps of the reference implementation, closed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Endorsements, Evidence, VerifierOptions
from kbs.attestation.verifiers import tpm
from kbs.client.attesters.tpm import SoftwareTpm
from kbs.errors import (
    BindingMismatch,
    EventLogMalformed,
    EventLogMismatch,
    EvidenceMalformed,
    InitDataMismatch,
    SignatureInvalid,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
REPORT_DATA = hashlib.sha384(b"challenge and key").digest()
INIT_DATA = hashlib.sha256(b"init data").digest()
ATTESTER = SoftwareTpm(scheme="ecdsa")
VERIFIER = tpm.build(VerifierOptions(anchors=ATTESTER.anchors))
VALUES = ATTESTER.bank.values


def verify(body: dict[str, Any], binding: Binding | None = None) -> dict[str, Any]:
    (found,) = VERIFIER.verify(Evidence(Tee.TPM, body), Endorsements(), binding or Binding(REPORT_DATA), AT)
    assert (found.tee, found.device_class) == (Tee.TPM, "cpu")
    return dict(found.claims)


def test_claims_by_upstreams_names() -> None:
    claims = verify(ATTESTER.evidence(REPORT_DATA, INIT_DATA), Binding(REPORT_DATA, INIT_DATA))
    assert claims["report_data"] == REPORT_DATA[:32].hex()
    assert claims["init_data"] == claims["pcr08"] == hashlib.sha256(bytes(32) + INIT_DATA).hexdigest()
    assert [claims[f"pcr{index:02}"] for index in range(24) if index != 8] == [
        value.hex() for index, value in enumerate(VALUES) if index != 8
    ]
    assert claims["boot_measured"] is True
    assert claims["firmware_version"] == "2020031200120003"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        # 6.5: selection and bank unread
        ({"selections": [("sha1", range(24))]}, EvidenceMalformed),
        ({"selections": [("sha256", [*range(8), 16])], "quoted": [*VALUES[:8], VALUES[16]]}, EvidenceMalformed),
        ({"selections": [("sha256", range(12)), ("sha256", range(12, 24))]}, EvidenceMalformed),
        ({"selections": [("sha256", range(24)), ("sha1", range(24))]}, EvidenceMalformed),
        ({"selections": []}, EvidenceMalformed),
        # 6.5: a short list panics
        ({"pcrs": VALUES[:8]}, EvidenceMalformed),
        ({"pcrs": []}, EvidenceMalformed),
        ({"pcrs": [*VALUES, VALUES[0]]}, EvidenceMalformed),
        # 6.2: nothing may follow
        ({"tail": b"\0"}, EvidenceMalformed),
        # what a TPM did not make, or made of something else
        ({"magic": 0}, EvidenceMalformed),
        ({"kind": 0x8014}, EvidenceMalformed),
        ({"kind": 0x8017}, EvidenceMalformed),
        # values that the quote does not cover
        ({"pcrs": [*VALUES[:11], bytes(32), *VALUES[12:]]}, SignatureInvalid),
        ({"quoted": VALUES[::-1]}, SignatureInvalid),
        ({"flip_signature": True}, SignatureInvalid),
        ({"signing_hash": "sha1"}, SignatureInvalid),
        # 6.5: the nonce, cut
        ({"nonce": REPORT_DATA[:16]}, BindingMismatch),
        ({"nonce": REPORT_DATA[:31]}, BindingMismatch),
        ({"nonce": REPORT_DATA}, BindingMismatch),
        ({"nonce": REPORT_DATA.ljust(64, b"\0")}, BindingMismatch),
        ({"nonce": b""}, BindingMismatch),
    ],
)
def test_each_wrong_quote_is_refused_for_its_cause(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        verify(ATTESTER.evidence(REPORT_DATA, **changes))
    assert type(refused.value) is error


@pytest.mark.parametrize("size", [0, 16, 31, 32, 33, 47, 49, 63, 65, 96])
def test_only_digests_are_cut_to_the_nonce(size: int) -> None:
    """Of anything else, what is left over would go unchecked."""
    body = ATTESTER.evidence(REPORT_DATA)
    data = (REPORT_DATA * 2)[:size]
    with pytest.raises(BindingMismatch):
        verify(body, Binding(data))
    assert verify(body, Binding(REPORT_DATA + bytes(16)))["binding"] == "checked"  # a SHA-512 digest's first half


def test_init_data_must_be_a_sha256_digest() -> None:
    digest = hashlib.sha384(b"init data").digest()
    with pytest.raises(InitDataMismatch):
        verify(ATTESTER.evidence(REPORT_DATA, digest), Binding(REPORT_DATA, digest))


def test_init_data_on_top_of_something_else_is_refused() -> None:
    """PCR 8 was extended before, say by a boot loader: nobody knows with what."""
    attester = SoftwareTpm(scheme="ecdsa", root=ATTESTER.root)
    attester.measure(8, 0xD, b"set root=hd0")
    with pytest.raises(InitDataMismatch):
        verify(attester.evidence(REPORT_DATA, INIT_DATA), Binding(REPORT_DATA, INIT_DATA))


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("unused", [bytes(32), b"\xff" * 32])
def test_a_boot_that_was_not_measured_is_a_claim(index: int, unused: bytes) -> None:
    attester = SoftwareTpm(scheme="ecdsa", root=ATTESTER.root)
    attester.bank.values[index] = unused
    assert verify(attester.evidence(REPORT_DATA))["boot_measured"] is False


def test_clock_and_counters_are_claims() -> None:
    claims = verify(ATTESTER.evidence(REPORT_DATA, clock=(1 << 40, 9, 5, 0)))
    assert claims["clock"] == {"milliseconds": 1 << 40, "reset_count": 9, "restart_count": 5, "safe": False}


def test_a_log_that_replays_becomes_claims() -> None:
    claims = verify(ATTESTER.evidence(REPORT_DATA, log=ATTESTER.event_log()))
    types = [event["type_name"] for event in claims["uefi_event_logs"]]
    assert types.count("EV_SEPARATOR") == 8
    assert claims["event_log"]["secure_boot"] is True
    assert "uefi_event_logs" not in verify(ATTESTER.evidence(REPORT_DATA))


def test_files_that_ima_measured_become_claims() -> None:
    attester = SoftwareTpm()
    for path in ("boot_aggregate", "/usr/bin/app", "/etc/app.conf"):
        attester.measure_file(path, path.encode())
    verifier = tpm.build(VerifierOptions(attester.options, attester.anchors))

    def claims(log: bytes | None) -> Mapping[str, Any]:
        body = attester.evidence(REPORT_DATA, log=attester.event_log(), ima_log=log)
        (found,) = verifier.verify(Evidence(Tee.TPM, body), Endorsements(), Binding(REPORT_DATA), AT)
        return found.claims

    found = claims(attester.ima_log())
    assert found["ima"] == {"entries": 3, "uncovered": 0, "violations": 0}
    assert [entry["path"] for entry in found["ima_log"]] == ["boot_aggregate", "/usr/bin/app", "/etc/app.conf"]
    assert found["ima_log"][1]["digest"] == hashlib.sha256(b"/usr/bin/app").hexdigest()
    assert "ima" not in claims(None)
    lines = attester.ima_log().splitlines(keepends=True)
    with pytest.raises(EventLogMismatch):
        claims(b"".join(lines[:-1]))
    with pytest.raises(EventLogMismatch):
        claims(b"".join((lines[1], lines[0], lines[2])))
    with pytest.raises(EventLogMalformed):
        claims(attester.ima_log().replace(b"/usr/bin/app", b"/usr/bin/apt"))


def test_a_log_with_an_event_left_out_is_refused() -> None:
    count = len(ATTESTER.measurements)
    for place, (index, _, _) in enumerate(ATTESTER.measurements):
        body = ATTESTER.evidence(REPORT_DATA, log=ATTESTER.event_log(without=[place]))
        if index == 11:  # the operating system's: firmware's log may say nothing of it, and the claims say that
            assert verify(body)["event_log"]["unlogged"] == [11]
            continue
        with pytest.raises(EventLogMismatch):
            verify(body)
    with pytest.raises(EventLogMismatch):
        verify(ATTESTER.evidence(REPORT_DATA, log=ATTESTER.event_log(without=range(count))))


def test_a_log_with_an_event_added_is_refused() -> None:
    attester = SoftwareTpm(scheme="ecdsa", root=ATTESTER.root)
    quoted = [*attester.bank.values]
    attester.measure(4, 0xD, b"never measured")
    body = attester.evidence(REPORT_DATA, log=attester.event_log(), pcrs=quoted, quoted=quoted)
    with pytest.raises(EventLogMismatch):
        verify(body)


@pytest.mark.parametrize("log", [b"\0", bytes(100), b"\xff" * 200])
def test_what_is_no_log_is_refused(log: bytes) -> None:
    with pytest.raises(EventLogMalformed):
        verify(ATTESTER.evidence(REPORT_DATA, log=log))


def test_nothing_is_needed_from_outside() -> None:
    evidence = Evidence(Tee.TPM, ATTESTER.evidence(REPORT_DATA))
    assert VERIFIER.needs(evidence) == ()
    assert VERIFIER.endorsements_from(evidence, {"crl": "AAAA"}) == Endorsements()
