"""Thousands of damaged logs: refused with our own errors, or harmless, and never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from kbs.attestation.event_log import ccel, ima, runtime, tcg
from kbs.attestation.event_log.algorithms import SM3
from kbs.attestation.event_log.model import ReplayedLog
from kbs.client.attesters.event_log import SoftwareEventLog, confidential_boot, measured_boot
from kbs.errors import EvidenceRejected
from tests.kbs.attestation.event_log.real_logs import log_of, pcrs_of, registers_of
from tests.kbs.attestation.event_log.test_ima import every_template

Replay = Callable[[bytes], object]


def targets() -> Iterator[tuple[str, bytes, Replay]]:
    boot = confidential_boot()
    boot.runtime(4, "example.org", "Started", "{}")
    other = confidential_boot("sm3")
    measured, old = measured_boot(), measured_boot(("sha1",), crypto_agile=False)
    agent = SoftwareEventLog(("sha256",))
    agent.runtime(17, "a", "b", '{"c":1}')
    kernel = every_template()
    csv, rtmrs, pcrs, old_pcrs = other.rtmrs(), boot.rtmrs(), measured.registers("sha256"), old.registers("sha1")
    alibaba, grub = registers_of("CCEL_AAEL_alibabacloud")[1], pcrs_of("rhel8-uefi", "sha256")
    yield "ccel", boot.to_bytes(), lambda log: ccel.replay(log, rtmrs)
    yield "csv", other.to_bytes(), lambda log: ccel.replay(log, csv, algorithm=SM3)
    yield "tcg", measured.to_bytes(), lambda log: tcg.replay(log, pcrs, "sha256")
    yield "sha1", old.to_bytes(b""), lambda log: tcg.replay(log, old_pcrs, "sha1")
    yield "agent", agent.to_bytes(), lambda log: runtime.replay(log, agent.registers(), "sha256")
    yield "ima text", kernel.text, lambda log: ima.replay(log, kernel.pcr, "sha256")
    yield "ima binary", kernel.binary, lambda log: ima.replay(log, kernel.pcr, "sha256")
    yield "real ccel", log_of("CCEL_AAEL_alibabacloud"), lambda log: ccel.replay(log, alibaba)
    yield "real tcg", log_of("tcg/rhel8-uefi"), lambda log: tcg.replay(log, grub, "sha256")


TARGETS = {name: (log, replay) for name, log, replay in targets()}


def mutations(log: bytes, choose: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        place, length = choose.randrange(len(log)), choose.choice((1, 2, 4, 8, 64))
        kind = choose.randrange(6)
        if kind == 0:
            yield log[:place]
        elif kind == 1:
            yield log[:place] + bytes((log[place] ^ 1 << choose.randrange(8),)) + log[place + 1 :]
        elif kind == 2:
            yield log[:place] + choose.randbytes(length) + log[place + length :]
        elif kind == 3:
            yield log[:place] + log[place + length :]
        elif kind == 4:
            yield log[:place] + choose.choice((b"\0", b"\xff")) * length + log[place:]
        else:
            source = choose.randrange(len(log))
            yield log[:place] + log[source : source + length] + log[place + length :]


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_logs(name: str) -> None:
    log, replay = TARGETS[name]
    refused = 0
    for mutated in mutations(log, random.Random(name), 300):
        try:
            replay(mutated)
        except EvidenceRejected:
            refused += 1
    assert refused > 100


def test_what_survives_damage_says_so() -> None:
    """Digests stand as they were quoted; data that were changed are no longer vouched for."""
    boot = confidential_boot()
    raw, rtmrs = boot.to_bytes(b""), boot.rtmrs()
    good = ccel.replay(raw, rtmrs)
    survived = 0
    for mutated in mutations(raw, random.Random(7), 1500):
        try:
            log: ReplayedLog = ccel.replay(mutated, rtmrs)
        except EvidenceRejected:
            continue
        survived += mutated != raw
        assert [entry["digests"] for entry in log.claims] == [entry["digests"] for entry in good.claims]
        assert log.secure_boot in (True, None)
        for entry, before in zip(log.claims, good.claims, strict=True):
            if entry["digest_covers"] == "event":
                assert entry["event"] == before["event"]
            if entry["digest_covers"] == "variable_data":
                assert entry["details"]["variable_data"] == before["details"]["variable_data"]
    assert survived > 20


def test_parts_of_two_good_logs_make_no_good_one() -> None:
    first, second = confidential_boot(kernel=b"one"), confidential_boot(kernel=b"two", command_line="debug")
    for place in range(1, len(first.events)):
        mixed = SoftwareEventLog(events=first.events[:place] + second.events[place:])
        if mixed.events in (first.events, second.events):
            continue
        for owner in (first, second):
            with pytest.raises(EvidenceRejected):
                ccel.replay(mixed.to_bytes(), owner.rtmrs())
