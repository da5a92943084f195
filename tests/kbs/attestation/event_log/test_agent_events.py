"""Events of the attestation agent (AAEL): from the published bytes to what policies see; nothing hides one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from kbs.attestation.event_log import aael, ccel, runtime, tcg
from kbs.client.attesters.event_log import ACTION, EVENT_TAG, SoftwareEventLog, digest, measured_boot
from kbs.errors import EventLogMalformed, EventLogMismatch

AAEL: Any = json.loads(Path("tests/vectors/eventlog/aael-vectors.json").read_text())
EVENTS = AAEL["events"]
PULL = EVENTS[1]["text"]
IMAGE = {"image": "registry.example/app:1", "digest": f"sha256:{'2' * 64}"}
ZEROS = bytes(48)
RTMR3 = bytes.fromhex(AAEL["replay_from_zero_in_order"]["rtmr3_sha384_hex"])
PCR17 = bytes.fromhex(AAEL["replay_from_zero_in_order"]["pcr17_sha256_hex"])
END = b"\xff" * 8
CCMRS = {1: 1, 7: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, **dict.fromkeys(range(8, 16), 3), 0: 4, 16: 4, 17: 4, 23: 4}
"""guest-components 5.6: number that the agent was told → index in the entry, of a TD."""


def header() -> bytes:
    """The fixed 69 bytes before a log without a CCEL."""
    return SoftwareEventLog(("sha384", "sm3")).to_bytes(b"")


def entries(name: str) -> bytes:
    return b"".join(bytes.fromhex(event[f"tcg2_entry_{name}_hex"]) for event in EVENTS)


def pulled(log: SoftwareEventLog, index: int = 4) -> None:
    log.runtime(index, *PULL.split(" ", 2))


def claims(log: SoftwareEventLog) -> Any:
    return ccel.replay(log.to_bytes(), log.rtmrs()).as_claims()


@pytest.mark.parametrize("event", EVENTS, ids=["plain", "pull"])
def test_event_bytes_are_the_published_ones(event: Any) -> None:
    text = event["text"].encode()
    raw = struct.pack("<II", aael.TAG, len(text)) + text
    assert raw.hex() == event["event_hex"]
    assert raw[:4] == b"LEAA"
    for bank, value in event["digests"].items():
        assert digest(bank, raw).hex() == value


def test_the_published_td_log_replays() -> None:
    raw = header() + entries("tdx_sha384_ccmr4") + END
    found = ccel.replay(raw, (ZEROS, ZEROS, ZEROS, RTMR3)).as_claims()
    assert found["runtime_events"] == [
        {"index": 4, "domain": "domain", "operation": "operation", "content": "content"},
        {"index": 4, "domain": "github.com/confidential-containers", "operation": "PullImage", "content": IMAGE},
    ]
    (_, shown) = found["uefi_event_logs"]
    assert shown["details"]["unicode_name"] == "AAEL"
    assert shown["details"]["data"] == {key: found["runtime_events"][1][key] for key in shown["details"]["data"]}
    assert found["event_log"]["registers"][3] == {"index": 4, "events": 2, "recomputed": 2, "runtime_events": 2}


def test_the_published_vtpm_log_replays_from_both_starts() -> None:
    raw = header() + entries("vtpm_sha256_pcr17") + END
    found = runtime.replay(raw, {17: PCR17}, "sha256")
    assert [event.content for event in found.runtime_events] == ["content", IMAGE]
    assert runtime.replay(entries("vtpm_sha256_pcr17"), {17: PCR17}, "sha256").runtime_events == found.runtime_events
    value = b"\xff" * 32
    for event in EVENTS:
        value = digest("sha256", value + bytes.fromhex(event["digests"]["sha256"]))
    assert runtime.replay(raw, {17: value}, "sha256").runtime_events == found.runtime_events


def test_the_published_vtpm_entries_behind_a_firmware_log() -> None:
    """As `tpm` evidence may have it: entries with the one digest of their bank, where the log announces two."""
    boot = measured_boot()
    quoted = boot.registers("sha256", indexes=range(24)) | {17: PCR17}
    found = tcg.replay(boot.to_bytes(b"") + entries("vtpm_sha256_pcr17") + END, quoted, "sha256")
    assert [event.register for event in found.runtime_events] == [17, 17]
    (register,) = (each for each in found.registers if each.index == 17)
    assert (register.events, register.runtime_events) == (2, 2)
    silent = tcg.replay(boot.to_bytes(), quoted, "sha256")
    assert silent.unlogged == (17,), "left out, and known to be"


@pytest.mark.parametrize("place", [0, 1])
def test_an_event_left_out_added_or_swapped(place: int) -> None:
    raw = [bytes.fromhex(event["tcg2_entry_tdx_sha384_ccmr4_hex"]) for event in EVENTS]
    for wrong in ([raw[place]], [raw[1], raw[0]], [*raw, raw[place]], []):
        with pytest.raises(EventLogMismatch):
            ccel.replay(header() + b"".join(wrong) + END, (ZEROS, ZEROS, ZEROS, RTMR3))


@pytest.mark.parametrize("register", [4, 3, 2, 1])
def test_each_register_that_a_td_has(register: int) -> None:
    log = SoftwareEventLog()
    pulled(log, register)
    found = claims(log)
    assert [event["index"] for event in found["runtime_events"]] == [register]
    assert register in CCMRS.values()


@pytest.mark.parametrize(("told", "logged"), [(told, index) for told, index in CCMRS.items() if index != 4])
def test_quirk_another_register_was_extended_than_the_entry_says(told: int, logged: int) -> None:
    """A caller that names a register: it is extended, and the entry has the number of the default (17, so 4)."""
    extended, written = SoftwareEventLog(), SoftwareEventLog()
    pulled(extended, logged)
    pulled(written, CCMRS[17])
    assert told != 17
    with pytest.raises(EventLogMismatch):
        ccel.replay(written.to_bytes(), extended.rtmrs())


def test_quirk_on_a_vtpm() -> None:
    extended, written = SoftwareEventLog(("sha256",)), SoftwareEventLog(("sha256",))
    pulled(extended, 16)
    pulled(written, 17)
    quoted = extended.registers(indexes=[16, 17])
    with pytest.raises(EventLogMismatch):
        runtime.replay(written.to_bytes(), quoted, "sha256")


def test_no_init_entry_is_asked_for() -> None:
    """The specification speaks of one; agents write none, and one that does may."""
    log = SoftwareEventLog()
    log.runtime(4, "github.com/confidential-containers", "INIT", "sha384/" + "0" * 96)
    pulled(log)
    assert [event["operation"] for event in claims(log)["runtime_events"]] == ["INIT", "PullImage"]


@pytest.mark.parametrize(
    "content",
    [
        '{"image":"registry.example/app:1", "digest":"sha256:2"}',
        '{"digest":"sha256:2","image":"registry.example/app:1"}',
        ' {"image": "registry.example/app:1" ,"digest" :"sha256:2"} ',
    ],
    ids=["as written", "sorted", "blanks"],
)
def test_content_need_not_be_canonical(content: str) -> None:
    found = aael.parse(f"d PullImage {content}").content
    assert found == {"image": "registry.example/app:1", "digest": "sha256:2"}


@pytest.mark.parametrize(
    "content",
    ['{"image":"a","image":"b","digest":"sha256:2"}', '{"image":"a"', "{'image':'a'}", '{"image":NaN}', "a b"],
    ids=["twice", "cut", "quotes", "nan", "text"],
)
def test_content_that_readers_could_read_in_two_ways_stays_text(content: str) -> None:
    """So that a policy which asks for an object says no."""
    assert aael.parse(f"d PullImage {content}").content == content


@pytest.mark.parametrize("text", ["", "a", "a b", "a  b", " a b c", "a b\nc d", "a b c\0", "a b c\x1b"])
def test_text_that_is_no_line(text: str) -> None:
    with pytest.raises(ValueError):
        aael.parse(text)


def test_hidden_events_leave_their_register_unexplained() -> None:
    """Digests are covered, texts and types are not: a pull that is written over, or called something else, is counted
    as an event of the register and not as one of the agent's."""
    log = SoftwareEventLog()
    pulled(log)
    raw, registers = log.to_bytes(), log.rtmrs()
    other_text = raw.replace(b"registry.example/app:1", b"registry.example/app:2")
    other_type = raw.replace(struct.pack("<II", 4, EVENT_TAG), struct.pack("<II", 4, ACTION))
    other_tag = raw.replace(b"LEAA", b"LEAB")
    for hidden in (other_text, other_type, other_tag):
        assert hidden != raw
        found = ccel.replay(hidden, registers).as_claims()
        assert found["runtime_events"] == []
        (register,) = (each for each in found["event_log"]["registers"] if each["index"] == 4)
        assert (register["events"], register["runtime_events"]) == (1, 0)


def test_a_log_of_the_agent_alone_takes_no_other_events() -> None:
    log = SoftwareEventLog(("sha256",))
    pulled(log, 17)
    log.measure(17, ACTION, b"something else")
    with pytest.raises(EventLogMalformed):
        runtime.replay(log.to_bytes(), log.registers(indexes=[17]), "sha256")
