"""Real logs: they replay, and their claims are those of the reference implementation."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections import Counter
from typing import Any

import pytest

from kbs.attestation.event_log import ccel, tcg
from kbs.attestation.event_log.model import ReplayedLog
from kbs.client.attesters.event_log import SoftwareEventLog
from kbs.errors import EventLogMalformed, EventLogMismatch
from tests.kbs.attestation.event_log.real_logs import (
    CCELS,
    EXPECTED,
    FOLDER,
    TCG_LOGS,
    TWO_SEPARATORS,
    expected,
    log_of,
    pcrs_of,
    registers_of,
)

OURS = {"digest_covers", "parsed"}


def replayed(name: str) -> ReplayedLog:
    algorithm, registers = registers_of(name)
    return ccel.replay(log_of(name), registers, algorithm=algorithm, allow_repeated_separators=name in TWO_SEPARATORS)


def as_upstream(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what we add."""
    details = {name: value for name, value in entry["details"].items() if name != "gpt"}
    return {name: value for name, value in entry.items() if name not in OURS} | {"details": details}


@pytest.mark.parametrize("name", EXPECTED)
def test_claims_are_those_of_the_reference_implementation(name: str) -> None:
    """Deliberate difference: what no register covers (index 0 here) stands apart, and undecoded."""
    upstream = expected(name)
    log = replayed(name)
    assert [as_upstream(entry) for entry in log.claims] == [entry for entry in upstream if entry["index"] > 0]
    apart = [
        {member: entry[member] for member in ("digests", "event", "index", "type_name")}
        for entry in upstream
        if entry["index"] == 0
    ]
    assert log.unverified == apart


@pytest.mark.parametrize("name", CCELS)
def test_every_register_is_needed(name: str) -> None:
    algorithm, registers = registers_of(name)
    for place in range(4):
        wrong = list(registers)
        wrong[place] = bytes((wrong[place][0] ^ 1,)) + wrong[place][1:]
        with pytest.raises(EventLogMismatch):
            ccel.replay(log_of(name), wrong, algorithm=algorithm)


@pytest.mark.parametrize("name", TWO_SEPARATORS)
def test_two_separators_in_a_register_need_the_option(name: str) -> None:
    algorithm, registers = registers_of(name)
    with pytest.raises(EventLogMalformed, match="separators"):
        ccel.replay(log_of(name), registers, algorithm=algorithm)


def test_a_log_replays_to_the_quote_it_came_with_and_that_of_another_boot_does_not() -> None:
    registers = [bytes.fromhex(value) for value in json.loads((FOLDER / "live_b0c06f.rtmrs.json").read_text())]
    log = ccel.replay(log_of("live_b0c06f.ccel"), registers)
    assert log.secure_boot is False
    assert len(log.claims) == 20
    with pytest.raises(EventLogMismatch, match="register 3"):
        ccel.replay(log_of("live_b0c06f.wrong.ccel"), registers)


def test_runtime_events_of_a_real_log() -> None:
    events = replayed("CCEL_AAEL_alibabacloud").as_claims()["runtime_events"]
    assert events == [
        {"index": 4, "domain": "coco.com", "operation": "some-operation", "content": "some-content"},
        {
            "index": 4,
            "domain": "coco.com",
            "operation": "some-operation",
            "content": {"key": "value", "nested-key": {"sub-key": "value"}},
        },
    ]


def test_secure_boot_of_real_logs() -> None:
    assert {name: replayed(name).secure_boot for name in CCELS} == {
        "CCEL_AAEL_alibabacloud": False,
        "CCEL_data": None,
        "CCEL_data_csv": False,
        "CCEL_data_gcp": False,
        "CCEL_data_grub": True,
        "CCEL_data_grub_gke": False,
        "CCEL_data_ovmf": False,
    }


def test_what_digests_of_boot_loaders_cover() -> None:
    """GRUB of Anolis hashes its commands without the label: 53 of 58 are recomputed."""
    entries = [entry for entry in replayed("CCEL_AAEL_alibabacloud").claims if entry["type_name"] == "EV_IPL"]
    assert Counter(entry["digest_covers"] for entry in entries) == {"text": 53, "unknown": 5}
    assert all(entry["digest_matches_event"] is False for entry in entries)


@pytest.mark.parametrize(("name", "bank"), [(name, bank) for name, banks in TCG_LOGS.items() for bank in banks])
def test_firmware_logs_replay_in_every_bank(name: str, bank: str) -> None:
    log = tcg.replay(log_of(f"tcg/{name}"), pcrs_of(name, bank), bank)
    assert not log.unverified
    assert not log.unlogged
    assert sum(register.events for register in log.registers) == len(log.claims)
    assert {entry["digests"][0]["alg"].replace("-", "").lower() for entry in log.claims} == {bank}


@pytest.mark.parametrize("name", TCG_LOGS)
def test_a_firmware_log_is_of_its_machine(name: str) -> None:
    pcrs = pcrs_of(name, "sha256")
    for index in pcrs:
        with pytest.raises(EventLogMismatch, match=f"PCR {index}$"):
            tcg.replay(log_of(f"tcg/{name}"), {**pcrs, index: bytes(32)}, "sha256")


def test_what_of_a_firmware_log_is_recomputed() -> None:
    log = tcg.replay(log_of("tcg/keylime_mb_log"), pcrs_of("keylime_mb_log", "sha256"), "sha256")
    assert Counter((entry["digest_covers"], entry["parsed"]) for entry in log.claims) == {
        ("text", True): 60,
        ("event", True): 19,
        ("event", False): 1,  # EV_S_CRTM_VERSION
        ("variable_data", True): 4,
        ("unknown", True): 15,
        ("unknown", False): 2,  # EV_EFI_PLATFORM_FIRMWARE_BLOB
    }
    assert log.secure_boot is True
    (table,) = (entry for entry in log.claims if entry["type_name"] == "EV_EFI_GPT_EVENT")
    assert table["digest_covers"] == "event"
    assert [partition["number"] for partition in table["details"]["gpt"]["partitions"]] == [1, 2, 3]


def test_a_sha1_log() -> None:
    """Replayed here by hand, since nobody published the result."""
    log = log_of("tcg/debian-10")
    values: dict[int, bytes] = {}
    offset = 0
    while offset < len(log):
        index, kind, digest, size = struct.unpack_from("<II20sI", log, offset)
        offset += 32 + size
        if kind != 3:
            values[index] = hashlib.sha1(values.get(index, bytes(20)) + digest).digest()
    replayed_log = tcg.replay(log, values, "sha1")
    assert replayed_log.secure_boot is True
    assert len(replayed_log.claims) == sum(register.events for register in replayed_log.registers) == 25
    with pytest.raises(EventLogMalformed, match="SHA-1"):
        tcg.replay(log, {0: bytes(32)}, "sha256")


def test_cost_is_linear_in_the_size_of_the_log() -> None:
    """Four times the entries in no more than eight times the time; both are far below a second."""

    def seconds(times: int) -> float:
        log = SoftwareEventLog()
        for number in range(times):
            log.measure(3, 0xD, b"grub_cmd: load_env %d\0" % number, b"load_env %d" % number)
        raw, registers = log.to_bytes(), log.rtmrs()
        taken = []
        for _ in range(5):
            begun = time.process_time()
            ccel.replay(raw, registers)
            taken.append(time.process_time() - begun)
        return min(taken)

    assert seconds(8000) < 8 * seconds(2000) < 8
