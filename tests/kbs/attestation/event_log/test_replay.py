"""Registers, separators, boot facts, runtime events: verifiers 3.2 to 3.6, one test for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kbs.attestation.event_log import ccel, runtime, tcg
from kbs.attestation.event_log.algorithms import SHA384, SM3
from kbs.client.attesters.event_log import (
    ACTION,
    CRTM_VERSION,
    IPL,
    NO_ACTION,
    PADDING,
    SEPARATOR,
    LoggedEvent,
    SoftwareEventLog,
    confidential_boot,
    digest,
    measured_boot,
)
from kbs.errors import EventLogMalformed, EventLogMismatch

AAEL = json.loads(Path("tests/vectors/eventlog/aael-vectors.json").read_text())


def claims_of(log: SoftwareEventLog, **options: Any) -> list[dict[str, Any]]:
    return ccel.replay(log.to_bytes(), log.rtmrs(), **options).claims


# --- registers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [SHA384, SM3], ids=lambda algorithm: algorithm.bank)
def test_a_good_log(algorithm: Any) -> None:
    log = confidential_boot(algorithm.bank)
    log.runtime(4, "example.org", "Started", '{"unit":1}')
    replayed = ccel.replay(log.to_bytes(), log.rtmrs(), algorithm=algorithm)
    assert replayed.as_claims()["event_log"] == {
        "registers": [
            {"index": 1, "events": 7, "recomputed": 7, "runtime_events": 0},
            {"index": 2, "events": 4, "recomputed": 3, "runtime_events": 0},
            {"index": 3, "events": 2, "recomputed": 0, "runtime_events": 0},
            {"index": 4, "events": 1, "recomputed": 1, "runtime_events": 1},
        ],
        "unlogged": [],
        "secure_boot": True,
    }
    assert replayed.as_claims()["runtime_events"] == [
        {"index": 4, "domain": "example.org", "operation": "Started", "content": {"unit": 1}}
    ]
    assert "uefi_event_logs_unverified" not in replayed.as_claims()


def test_claims_are_json() -> None:
    log = confidential_boot()
    log.events.append(LoggedEvent(9, ACTION, b"\xff", b""))
    claims = ccel.replay(log.to_bytes(), log.rtmrs()).as_claims()
    assert json.loads(json.dumps(claims)) == claims
    assert set(claims) == {"uefi_event_logs", "runtime_events", "event_log", "uefi_event_logs_unverified"}


def test_an_event_left_out_added_or_swapped_is_refused() -> None:
    log = confidential_boot()
    registers = log.rtmrs()
    for place in range(len(log.events)):
        without = SoftwareEventLog(events=log.events[:place] + log.events[place + 1 :])
        with pytest.raises(EventLogMismatch):
            ccel.replay(without.to_bytes(), registers)
        doubled = SoftwareEventLog(events=log.events[: place + 1] + log.events[place:])
        with pytest.raises((EventLogMismatch, EventLogMalformed)):
            ccel.replay(doubled.to_bytes(), registers)
    swapped = SoftwareEventLog(events=[log.events[1], log.events[0], *log.events[2:]])
    with pytest.raises(EventLogMismatch):
        ccel.replay(swapped.to_bytes(), registers)


def test_a_register_without_events_has_to_be_zero() -> None:
    log = confidential_boot()
    registers = (*log.rtmrs(3), b"\1" * 48)
    with pytest.raises(EventLogMismatch, match="no events of register 4"):
        ccel.replay(log.to_bytes(), registers)
    replayed = ccel.replay(log.to_bytes(), registers, may_be_unlogged=[4])
    assert replayed.unlogged == (4,)
    assert [each.index for each in replayed.registers] == [1, 2, 3], "no events of it are not events without fault"
    assert ccel.replay(log.to_bytes(), log.rtmrs(), may_be_unlogged=[4]).unlogged == ()


def test_leave_for_unlogged_registers_is_no_leave_to_log_them_wrong() -> None:
    log = confidential_boot()
    log.runtime(4, "a", "b", "c")
    with pytest.raises(EventLogMismatch, match="register 4"):
        ccel.replay(log.to_bytes(), (*log.rtmrs(3), b"\1" * 48), may_be_unlogged=[4])


@pytest.mark.parametrize("register", [0, 5, 0xFFFFFFFE])
def test_events_that_no_register_covers_are_kept_apart_and_not_looked_into(register: int) -> None:
    """Gap upstream: it emits them among the others."""
    log = confidential_boot()
    good = claims_of(log)
    log.runtime(register, "example.org", "PullImage", "x")
    replayed = ccel.replay(log.to_bytes(), log.rtmrs())
    assert replayed.claims == good
    assert replayed.runtime_events == ()
    (apart,) = replayed.unverified
    assert set(apart) == {"index", "type_name", "event", "digests"}
    assert replayed.as_claims()["uefi_event_logs_unverified"] == [apart]


def test_no_action_extends_nothing_and_hides_nothing() -> None:
    """Gap upstream: a real event relabelled as no-action is extended there, and its type hides it from policy."""
    log = confidential_boot()
    registers = log.rtmrs()
    log.measure(2, NO_ACTION, b"SP800-155 Event3")
    assert [entry["type_name"] for entry in ccel.replay(log.to_bytes(), registers).unverified] == ["EV_NO_ACTION"]
    raw = log.to_bytes(b"")
    hidden = raw.replace(log.entry(log.events[0]), log.entry(log.events[0]).replace(b"\1\0\0\x80", b"\3\0\0\0", 1))
    assert hidden != raw
    with pytest.raises(EventLogMalformed, match="EV_NO_ACTION"):
        ccel.replay(hidden, registers)


def test_only_the_quoted_digest_is_shown() -> None:
    """A digest of another bank is covered by no quote, and may be as long as the right one."""
    log = SoftwareEventLog(("sm3", "sha256"))
    log.measure(4, ACTION, b"x")
    raw = log.to_bytes(b"").replace(digest("sm3", b"x"), b"\x77" * 32)
    (entry,) = tcg.replay(raw, log.registers("sha256"), "sha256").claims
    assert entry["digests"] == [{"alg": "SHA-256", "digest": digest("sha256", b"x").hex()}]


def test_registers_of_another_size_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="size"):
        ccel.replay(confidential_boot().to_bytes(), [bytes(32)] * 4)
    with pytest.raises(ValueError, match="size"):
        ccel.replay(confidential_boot().to_bytes(), [])


# --- digests and what they cover -------------------------------------------------------------------------------------


def covers(kind: int, data: bytes, measured: bytes) -> tuple[str, bool, bool]:
    log = SoftwareEventLog()
    log.measure(3, kind, data, measured)
    (entry,) = claims_of(log)
    assert entry["digest_matches_event"] is (entry["digest_covers"] == "event")
    return entry["digest_covers"], entry["parsed"], bool(entry["details"])


def tag(text: bytes, number: int = 7) -> bytes:
    return number.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


@pytest.mark.parametrize(
    ("kind", "data", "measured", "expected"),
    [
        (ACTION, b"x", b"x", ("event", True, True)),
        (ACTION, b"x", b"y", ("unknown", False, False)),  # the profile demands that it is the hash of the data
        (SEPARATOR, bytes(4), bytes(4), ("event", True, False)),
        (SEPARATOR, bytes(3), bytes(3), ("event", False, False)),
        (IPL, b"grub_cmd: ls\0", b"ls", ("text", True, True)),
        (IPL, b"grub_cmd: ls\0", b"ls\0", ("unknown", True, True)),
        (IPL, b"grub_cmd ls\0", b"ls\0", ("text", True, True)),
        (IPL, b"grub_cmd ls\0?", b"ls\0", ("text", True, True)),
        (IPL, b"grub_kernel_cmdline ls\0?", b"ls", ("text", True, True)),
        (IPL, b"MokList\0", b"a list", ("unknown", True, True)),
        (IPL, b"Not A Label: ls\0", b"ls", ("unknown", True, True)),
        (IPL, b"grub_cmd: ls\0", b"grub_cmd: ls\0", ("event", True, True)),
        (6, tag(b"text"), tag(b"text"), ("event", True, True)),
        (6, tag(b"text"), b"text", ("tagged_data", True, True)),
        (6, tag(b"text"), b"an image", ("unknown", True, True)),
        (6, tag(b"text")[:-1], b"an image", ("unknown", False, False)),
        (0x80000004, b"?", b"an image", ("unknown", False, False)),
        (8, b"version", b"version", ("event", False, False)),
        (0x12345678, b"x", b"x", ("event", False, False)),
    ],
)
def test_what_digests_cover(kind: int, data: bytes, measured: bytes, expected: tuple[str, bool, bool]) -> None:
    assert covers(kind, data, measured) == expected


def test_a_boot_variable_is_recomputed_from_its_value() -> None:
    log = confidential_boot()
    (entry,) = (entry for entry in claims_of(log) if entry["type_name"] == "EV_EFI_VARIABLE_BOOT")
    assert (entry["digest_covers"], entry["digest_matches_event"], entry["parsed"]) == ("variable_data", False, True)


def test_a_type_that_nobody_knows_is_shown_by_its_number() -> None:
    """Gap upstream: it refuses the whole log."""
    log = SoftwareEventLog()
    log.measure(1, 0x80000099, b"x")
    (entry,) = claims_of(log)
    assert (entry["type_name"], entry["parsed"], entry["event"]) == ("EV_UNKNOWN_0x80000099", False, "eA==")


# --- separators and boot facts ---------------------------------------------------------------------------------------


def test_a_second_separator_is_refused_unless_allowed() -> None:
    log = confidential_boot()
    log.separator(1)
    with pytest.raises(EventLogMalformed, match="two separators"):
        ccel.replay(log.to_bytes(), log.rtmrs())
    assert len(claims_of(log, allow_repeated_separators=True)) == len(log.events)


def test_a_second_separator_in_a_register_that_nobody_quotes_changes_nothing() -> None:
    log = measured_boot()
    log.separator(5)
    pcrs = log.registers("sha256")
    del pcrs[5]
    assert tcg.replay(log.to_bytes(b""), pcrs, "sha256").secure_boot is True


def test_secure_boot_is_read_before_the_first_separator_only() -> None:
    log = SoftwareEventLog()
    log.separator(1)
    log.variable(1, "SecureBoot", b"\1")
    assert ccel.replay(log.to_bytes(), log.rtmrs()).secure_boot is None
    log.separator(1)
    replayed = ccel.replay(log.to_bytes(), log.rtmrs(), allow_repeated_separators=True)
    assert replayed.secure_boot is None


def secure_boot_of(
    *events: tuple[str, bytes], register: int = 1, separator: bool = True, **options: Any
) -> bool | None:
    log = SoftwareEventLog()
    for name, value in events:
        log.variable(register, name, value, **options)
    if separator:
        log.separator(1)
    return ccel.replay(log.to_bytes(), log.rtmrs()).secure_boot


def test_secure_boot() -> None:
    assert secure_boot_of(("SecureBoot", b"\1")) is True
    assert secure_boot_of(("SecureBoot", b"\0")) is False
    assert secure_boot_of(("SecureBoot", b"")) is False
    assert secure_boot_of() is None
    assert secure_boot_of(("SecureBoot", b"\2")) is None
    assert secure_boot_of(("SecureBoot", b"\1"), ("SecureBoot", b"\0")) is None
    assert secure_boot_of(("SecureBoot", b"\1"), ("SecureBoot", b"\1")) is None
    assert secure_boot_of(("SecureBoot", b"\1"), separator=False) is None
    assert secure_boot_of(("SecureBoot", b"\1"), register=2) is None
    assert secure_boot_of(("SetupMode", b"\1")) is None


def test_the_end_of_the_boot_phase_cannot_be_moved_by_another_label() -> None:
    """Secure boot off; root in the guest extends "SecureBoot on" and a separator of its own, and relabels the rest."""
    for real in (bytes(4), b"\xff" * 4):
        log = SoftwareEventLog()
        log.variable(1, "SecureBoot", b"\0")
        log.measure(1, SEPARATOR, real)
        log.variable(1, "SecureBoot", b"\1")
        log.measure(1, SEPARATOR, b"\1\0\0\0")
        log.events[:2] = [LoggedEvent(1, IPL, b"grub_cmd: x", event.measured) for event in log.events[:2]]
        assert ccel.replay(log.to_bytes(), log.rtmrs()).secure_boot is None


def test_secure_boot_of_another_vendors_variable_says_nothing() -> None:
    assert secure_boot_of(("SecureBoot", b"\1"), guid=UUID(int=1)) is None


def test_secure_boot_that_is_not_what_was_hashed_says_nothing() -> None:
    log = confidential_boot(secure_boot=False)
    registers = log.rtmrs()
    event = log.events[0]
    lie = LoggedEvent(event.register, event.type, event.data[:-1] + b"\1", event.measured)
    log.events[0] = lie
    replayed = ccel.replay(log.to_bytes(), registers)
    assert replayed.secure_boot is None
    assert (replayed.claims[0]["digest_covers"], replayed.claims[0]["details"]) == ("unknown", {})


# --- firmware logs of a TPM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bank", ["sha1", "sha256"])
def test_a_firmware_log(bank: str) -> None:
    log = measured_boot()
    replayed = tcg.replay(log.to_bytes(b""), log.registers(bank, range(17)), bank)
    assert replayed.secure_boot is True
    assert replayed.unlogged == ()


def test_a_firmware_log_of_the_old_format() -> None:
    log = measured_boot(("sha1",), crypto_agile=False)
    assert tcg.replay(log.to_bytes(b""), log.registers("sha1"), "sha1").secure_boot is True
    with pytest.raises(EventLogMalformed, match="SHA-1 digests only"):
        tcg.replay(log.to_bytes(b""), {0: bytes(32)}, "sha256")


def test_firmware_registers_have_to_be_in_the_log_and_others_are_reported() -> None:
    log = measured_boot()
    pcrs = {**log.registers("sha256", range(17)), 10: b"\1" * 32, 16: b"\1" * 32}
    assert tcg.replay(log.to_bytes(b""), pcrs, "sha256").unlogged == (10, 16)
    without = SoftwareEventLog(log.banks, events=[event for event in log.events if event.register != 2])
    with pytest.raises(EventLogMismatch, match="no events of PCR 2"):
        tcg.replay(without.to_bytes(b""), pcrs, "sha256")
    with pytest.raises(EventLogMismatch, match="no events of PCR 10"):
        tcg.replay(log.to_bytes(b""), pcrs, "sha256", may_be_unlogged=())


def test_registers_of_a_dynamic_launch_start_at_ones_or_at_zero() -> None:
    log = measured_boot()
    pcrs = log.registers("sha256", range(17))
    for start in (bytes(32), b"\xff" * 32):
        assert tcg.replay(log.to_bytes(b""), {**pcrs, 17: start}, "sha256", may_be_unlogged=()).unlogged == ()
    log.measure(18, ACTION, b"x")
    ones = digest("sha256", b"\xff" * 32 + digest("sha256", b"x"))
    for value in (ones, log.registers("sha256")[18]):
        assert tcg.replay(log.to_bytes(b""), {**pcrs, 18: value}, "sha256").unlogged == ()


def locality(number: int, text: bytes = b"StartupLocality\0") -> SoftwareEventLog:
    log = SoftwareEventLog(("sha256",))
    log.measure(0, NO_ACTION, text + bytes((number,)))
    log.measure(0, CRTM_VERSION, b"1")
    return log


@pytest.mark.parametrize("number", [0, 3, 4])
def test_the_locality_that_started_the_tpm(number: int) -> None:
    start = bytes(31) + bytes((number,))
    value = digest("sha256", start + digest("sha256", b"1"))
    log = locality(number)
    tcg.replay(log.to_bytes(b""), {0: value}, "sha256")
    if number:
        with pytest.raises(EventLogMismatch):
            tcg.replay(log.to_bytes(b""), log.registers(), "sha256")


@pytest.mark.parametrize("log", [locality(1), locality(3, b"StartupLocality\0\0")])
def test_a_locality_that_cannot_be(log: SoftwareEventLog) -> None:
    with pytest.raises(EventLogMalformed, match="locality"):
        tcg.replay(log.to_bytes(b""), log.registers(), "sha256")


def test_a_locality_behind_the_first_event_comes_too_late() -> None:
    log = locality(3)
    log.events.reverse()
    assert tcg.replay(log.to_bytes(b""), log.registers(), "sha256").unverified


def test_a_bank_that_nobody_knows() -> None:
    with pytest.raises(KeyError):
        tcg.replay(measured_boot().to_bytes(), {0: bytes(32)}, "md5")


# --- events of the attestation agent ---------------------------------------------------------------------------------


def test_published_events_of_the_attestation_agent() -> None:
    tdx = b"".join(bytes.fromhex(event["tcg2_entry_tdx_sha384_ccmr4_hex"]) for event in AAEL["events"])
    head = SoftwareEventLog(("sha384", "sm3")).to_bytes(b"")
    register = bytes.fromhex(AAEL["replay_from_zero_in_order"]["rtmr3_sha384_hex"])
    log = ccel.replay(head + tdx + PADDING, [bytes(48)] * 3 + [register])
    vtpm = b"".join(bytes.fromhex(event["tcg2_entry_vtpm_sha256_pcr17_hex"]) for event in AAEL["events"])
    pcr = bytes.fromhex(AAEL["replay_from_zero_in_order"]["pcr17_sha256_hex"])
    for start in (b"", head):
        alone = runtime.replay(start + vtpm + PADDING, {17: pcr}, "sha256")
        assert [event.content for event in alone.runtime_events] == [event.content for event in log.runtime_events]
    assert [(event.domain, event.operation) for event in log.runtime_events] == [
        ("domain", "operation"),
        ("github.com/confidential-containers", "PullImage"),
    ]
    assert log.runtime_events[1].content == {"image": "registry.example/app:1", "digest": f"sha256:{'2' * 64}"}
    assert [entry["details"]["string"] for entry in log.claims] == [event["text"] for event in AAEL["events"]]


def test_a_runtime_event_that_is_not_what_was_hashed_is_none() -> None:
    """It stays visible as an event that nobody explains: events and runtime_events of the register differ."""
    log = SoftwareEventLog()
    log.runtime(4, "example.org", "PullImage", "good")
    event = log.events[0]
    log.events[0] = LoggedEvent(4, event.type, event.data.replace(b"good", b"evil"), event.measured)
    replayed = ccel.replay(log.to_bytes(), log.rtmrs())
    assert replayed.runtime_events == ()
    assert replayed.registers[3].as_claim() == {"index": 4, "events": 1, "recomputed": 0, "runtime_events": 0}
    assert (replayed.claims[0]["details"], replayed.claims[0]["parsed"]) == ({}, False)


def test_a_runtime_event_relabelled_as_something_else_is_missed() -> None:
    log = SoftwareEventLog()
    log.runtime(4, "example.org", "PullImage", "good")
    log.events[0] = LoggedEvent(4, IPL, b"grub_cmd: nothing\0", log.events[0].measured)
    register = ccel.replay(log.to_bytes(), log.rtmrs()).registers[3]
    assert (register.events, register.runtime_events) == (1, 0)


@pytest.mark.parametrize("header", [True, False])
def test_a_runtime_log_alone(header: bool) -> None:
    log = SoftwareEventLog(("sha256",))
    log.runtime(17, "a", "b", "1")
    ones = {17: digest("sha256", b"\xff" * 32 + digest("sha256", log.events[0].data))}
    for pcrs in (log.registers(), ones):
        (event,) = runtime.replay(log.to_bytes(header=header), pcrs, "sha256").runtime_events
        assert event.content == 1
    with pytest.raises(EventLogMismatch, match="PCR 17"):
        runtime.replay(log.to_bytes(header=header), {17: bytes(32)}, "sha256")


def test_a_runtime_log_holds_nothing_but_tagged_events() -> None:
    log = SoftwareEventLog(("sha256",))
    log.measure(17, ACTION, b"x")
    with pytest.raises(EventLogMalformed, match="tagged"):
        runtime.replay(log.to_bytes(), log.registers(), "sha256")
    with pytest.raises(EventLogMalformed, match="empty"):
        runtime.replay(b"", {17: bytes(32)}, "sha256")
    with pytest.raises(EventLogMismatch, match="no events of PCR 17"):
        runtime.replay(PADDING, {17: b"\1" * 32}, "sha256")
