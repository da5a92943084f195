"""The TDX verifier around the core: binding, attributes, service TDs, event logs, settings."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.attestation.model import Binding, Evidence, VerifiedClaims, VerifierOptions
from kbs.attestation.verifiers import tdx
from kbs.attestation.verifiers.tdx.options import TdxOptions, read_options
from kbs.client.attesters.event_log import SoftwareEventLog, confidential_boot
from kbs.client.attesters.tdx import SEPT_VE_DISABLE, SoftwareTdx
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import (
    BindingMismatch,
    ConfigInvalid,
    EventLogMalformed,
    EventLogMismatch,
    EvidenceMalformed,
    EvidenceRejected,
    InitDataMismatch,
    SignerNotTrusted,
)
from kbs.protocol.tee import Tee

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
NONCE = bytes(range(48))
TD = SoftwareTdx()
BUNDLE = TD.endorsements
VERIFIER = tdx.build(VerifierOptions({}, TD.anchors))
SERVICE = b"\x5d" * 48


def verify(body: Any, binding: Binding | None = None, **options: Any) -> VerifiedClaims:
    verifier = tdx.build(VerifierOptions(options, TD.anchors)) if options else VERIFIER
    evidence = Evidence(Tee.TDX, body)
    given = verifier.endorsements_from(evidence, BUNDLE)
    (found,) = verifier.verify(evidence, given, binding or Binding(NONCE), AT)
    return found


@pytest.mark.parametrize("version", [4, 5])
def test_claims_of_a_good_td(version: int) -> None:
    found = verify(TD.evidence(NONCE, bytes(32), version=version)).claims
    quote = found["quote"]
    assert quote["header"]["version"] == f"0{version}00"
    assert quote["header"]["tee_type"] == "81000000"
    assert quote["body"]["rtmr_1"] == TD.log.rtmrs()[1].hex()
    assert ("type" in quote) is ("mr_servicetd" in quote["body"]) is (version == 5)
    if version == 5:
        assert (quote["type"], quote["size"]) == ("0300", "88020000")
        assert found["tcb_status_current"] == "UpToDate"
    assert found["td_attributes"] == {
        "debug": False, "septve_disable": True, "migratable": False, "protection_keys": False, "key_locker": False,
        "perfmon": False, "profiling": False,
    }  # fmt: skip
    assert (found["binding"], found["revocation"]) == ("checked", "checked")
    assert found["report_data"] == NONCE.ljust(64, b"\0").hex()
    assert found["init_data"] == bytes(48).hex()
    assert found["event_log"]["unlogged"] == []


@pytest.mark.parametrize(
    ("bit", "name"),
    [(0, "debug"), (4, "profiling"), (5, "profiling"), (6, "profiling"), (29, "migratable"), (30, "protection_keys"),
     (31, "key_locker"), (63, "perfmon"), (28, None), (16, None), (27, None), (62, None)],
)  # fmt: skip
def test_attributes_are_told(bit: int, name: str | None) -> None:
    found = verify(TD.evidence(NONCE, fields={"td_attributes": 1 << bit | SEPT_VE_DISABLE})).claims["td_attributes"]
    assert {flag for flag, is_set in found.items() if is_set} == {"septve_disable"} | ({name} if name else set())


@pytest.mark.parametrize("bit", [*{1, 2, 3, 7, 8, 15, 17, 26, 32, 47, 61}])
def test_reserved_attributes_are_refused(bit: int) -> None:
    with pytest.raises(EvidenceMalformed, match="reserved"):
        verify(TD.evidence(NONCE, fields={"td_attributes": 1 << bit}))


def test_a_service_td_has_to_be_allowed() -> None:
    evidence = TD.evidence(NONCE, version=5, fields={"mr_servicetd": SERVICE})
    listed: list[dict[str, Any]] = [{}, {"tdx_service_tds": ["00" * 48]}, {"tdx_service_tds": []}]
    for options in listed:
        with pytest.raises(SignerNotTrusted, match="service TD"):
            verify(evidence, **options)
    found = verify(evidence, tdx_service_tds=[SERVICE.hex().upper()])
    assert found.claims["quote"]["body"]["mr_servicetd"] == SERVICE.hex()


def test_a_clear_sept_ve_disable() -> None:
    evidence = TD.evidence(NONCE, fields={"td_attributes": 0})
    assert "septve_waived" not in verify(evidence).claims
    assert verify(evidence, tdx_allow_sept_ve=True).claims["septve_waived"] is True
    assert "septve_waived" not in verify(TD.evidence(NONCE), tdx_allow_sept_ve=True).claims


@pytest.mark.parametrize("place", [0, 47, 48, 63])
def test_all_of_the_report_data_is_compared(place: int) -> None:
    report_data = bytearray(NONCE.ljust(64, b"\0"))
    report_data[place] ^= 1
    with pytest.raises(BindingMismatch):
        verify(TD.evidence(bytes(report_data)))


def test_bytes_behind_the_quote() -> None:
    """Zeros are padding and told; anything else is refused, and zeros too where a setting says so."""
    assert verify(TD.evidence(NONCE, trailing=bytes(70))).claims["trailing_bytes"] == 70
    assert "trailing_bytes" not in verify(TD.evidence(NONCE)).claims
    refused: list[tuple[bytes, dict[str, Any]]] = [
        (bytes(69) + b"\1", {}),
        (bytes(70), {"allow_trailing_bytes": False}),
    ]
    for trailing, options in refused:
        with pytest.raises(EvidenceMalformed):
            verify(TD.evidence(NONCE, trailing=trailing), **options)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_init_data_of_any_digest(size: int) -> None:
    """Filled with zeros, or cut, to the 48 bytes of MRCONFIGID."""
    digest = bytes(range(100, 100 + size))
    evidence = TD.evidence(NONCE, digest)
    assert verify(evidence, Binding(NONCE, digest)).claims["init_data"] == digest[:48].ljust(48, b"\0").hex()
    for other in (digest[:31], digest[1:], digest[:-17], b"", digest[:16] + b"\0" + digest[17:]):
        with pytest.raises(InitDataMismatch):
            verify(evidence, Binding(NONCE, other))


def test_logs_that_are_wrong() -> None:
    log = TD.log.to_bytes()
    for wrong, error in (
        (b"\0", EventLogMalformed),
        (b"\0" * 40, EventLogMalformed),
        (log[:-30], EventLogMalformed),
        (confidential_boot(kernel=b"another kernel").to_bytes(), EventLogMismatch),
        (SoftwareEventLog().to_bytes(), EventLogMismatch),
    ):
        body = TD.evidence(NONCE) | {"cc_eventlog": base64.b64encode(wrong).decode()}
        with pytest.raises(error):
            verify(body)


def test_a_log_that_says_nothing_of_the_firmware() -> None:
    """A guest that cannot read its firmware's log begins one of its own."""
    boot = confidential_boot()
    boot.runtime(4, "github.com/confidential-containers", "PullImage", "image@sha256:00")
    td = SoftwareTdx(TD.intel.root, log=boot)
    own = SoftwareEventLog()
    own.runtime(4, "github.com/confidential-containers", "PullImage", "image@sha256:00")
    evidence = td.evidence(NONCE, log=own.to_bytes())
    with pytest.raises(EventLogMismatch):
        verify(evidence)
    found = verify(evidence, tdx_unlogged_registers=[1, 2, 3]).claims
    assert found["event_log"]["unlogged"] == [1, 2, 3]
    assert found["runtime_events"][0]["operation"] == "PullImage"


@pytest.mark.parametrize("log", [None, "", "absent"])
def test_without_a_log(log: str | None) -> None:
    """Guests whose firmware has an empty one send it so; it says as little as none."""
    body = TD.evidence(NONCE, log=None) | {"cc_eventlog": log}
    if log == "absent":
        del body["cc_eventlog"]
    found = verify(body).claims
    assert not found.keys() & {"uefi_event_logs", "event_log", "runtime_events"}
    with pytest.raises(EventLogMismatch):
        verify(body, tdx_require_event_log=True)


@pytest.mark.parametrize(
    "body",
    [
        {"quote": None}, {"quote": 1}, {"quote": ""}, {"quote": "!"}, {"quote": "é"}, {"quote": "AAAA"},
        {"quote": "A" * 200_000}, {"cc_eventlog": None}, {"cc_eventlog": 5}, {"cc_eventlog": "!"},
        {"quote": base64.urlsafe_b64encode(b"\xff" * 5000).decode()},
    ],
    ids=range(11),
)  # fmt: skip
def test_members_of_another_form_are_refused(body: dict[str, Any]) -> None:
    whole = body if "quote" in body or body["cc_eventlog"] is None else TD.evidence(NONCE) | body
    with pytest.raises(EvidenceRejected):
        VERIFIER.needs(Evidence(Tee.TDX, whole))


def test_other_members_are_ignored() -> None:
    assert verify(TD.evidence(NONCE) | {"aa_eventlog": "x", "more": []}).claims == verify(TD.evidence(NONCE)).claims


def test_what_needs_read_serves_only_the_same_evidence() -> None:
    one, other = Evidence(Tee.TDX, TD.evidence(NONCE)), Evidence(Tee.TDX, TD.evidence(bytes(48)))
    given = VERIFIER.endorsements_from(one, BUNDLE)
    assert VERIFIER.needs(one)
    with pytest.raises(BindingMismatch):
        VERIFIER.verify(other, given, Binding(NONCE), AT)


def test_options() -> None:
    found = read_options(
        {
            "tdx_service_tds": [SERVICE.hex()], "tdx_allow_sept_ve": True, "tdx_require_event_log": True,
            "tdx_unlogged_registers": [1, 4], "tdx_allow_repeated_separators": True, "allow_trailing_bytes": False,
            "allow_unchecked_revocation": ["tdx"], "dcap_min_evaluation_number": 17,
        }
    )  # fmt: skip
    assert found.service_tds == {SERVICE}
    assert found.unlogged_registers == {1, 4}
    assert (found.allow_sept_ve, found.require_event_log, found.allow_repeated_separators) == (True, True, True)
    assert found.dcap.quote.minimum_evaluation_number == 17
    assert (found.dcap.waive_revocation, found.dcap.allow_trailing_bytes) == (True, False)
    assert read_options({}) == TdxOptions()
    assert not read_options({"allow_unchecked_revocation": ["sgx"]}).dcap.waive_revocation


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1}, {"snp_v2_product": "Milan"}, {"tdx_service_tds": "00"}, {"tdx_service_tds": ["00"]},
        {"tdx_service_tds": [1]}, {"tdx_allow_sept_ve": 1}, {"tdx_require_event_log": "yes"},
        {"tdx_unlogged_registers": [0]}, {"tdx_unlogged_registers": [5]}, {"tdx_unlogged_registers": [True]},
        {"tdx_unlogged_registers": 1}, {"tdx_allow_repeated_separators": None}, {"allow_trailing_bytes": 0},
        {"allow_unchecked_revocation": "tdx"}, {"allow_unchecked_revocation": ["tdy"]},
        {"dcap_min_evaluation_number": -1}, {"dcap_min_evaluation_number": True}, {"dcap_min_evaluation_number": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        tdx.build(VerifierOptions(options))


def test_a_thousand_mutated_evidences() -> None:
    """Cut, extended, flipped, and mixed from two good ones: refused with a class of its own, and nothing else."""
    mixer = random.Random(1)
    one, two = TD.quote(NONCE), SoftwareTdx(TestRoot()).quote(bytes(48))
    log = TD.log.to_bytes()
    given = VERIFIER.endorsements_from(Evidence(Tee.TDX, one), BUNDLE)
    chain = one.index(b"-----BEGIN")
    root = one.rindex(b"-----BEGIN")
    mutants: list[tuple[bytes, bytes]] = []
    for _ in range(300):
        flipped = bytearray(one)
        flipped[mixer.randrange(chain)] ^= 1 << mixer.randrange(8)
        mutants.append((bytes(flipped), log))
    for _ in range(150):
        flipped = bytearray(one)
        flipped[mixer.randrange(chain, root)] ^= 1 << mixer.randrange(8)
        mutants.append((bytes(flipped), log))
    mutants += [(one[: mixer.randrange(len(one))], log) for _ in range(200)]
    mutants += [(one + mixer.randbytes(mixer.randrange(1, 100)), log) for _ in range(50)]
    for _ in range(200):
        start = mixer.randrange(root - 1)
        end = mixer.randrange(start + 1, root)
        if one[start:end] != two[start:end]:
            mutants.append((one[:start] + two[start:end] + one[end:], log))
    for _ in range(150):
        flipped = bytearray(log)
        flipped[mixer.randrange(70, len(log) - 8)] ^= 1 << mixer.randrange(8)
        mutants.append((one, bytes(flipped)))
    mutants += [(one, log[: mixer.randrange(len(log) - 8)]) for _ in range(50)]
    assert len(mutants) >= 1000
    accepted = 0
    causes: set[type[EvidenceRejected]] = set()
    for quote, events in mutants:
        body = {"quote": base64.b64encode(quote).decode(), "cc_eventlog": base64.b64encode(events).decode()}
        try:
            VERIFIER.verify(Evidence(Tee.TDX, body), given, Binding(NONCE), AT)
        except EvidenceRejected as refused:
            causes.add(type(refused))
            continue
        assert quote == one, "no byte of a quote may change"
        accepted += 1
    assert accepted < 100, "only data of events that no digest covers"
    assert EvidenceRejected not in causes
    assert len(causes) > 5
