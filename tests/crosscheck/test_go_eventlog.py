"""Event logs through `go-eventlog`: the same registers, and the same events behind them.

The reference implementation's own reading of the CCELs is compared in tests/kbs/attestation/event_log/test_vectors.py.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from kbs.attestation.event_log import ccel, tcg
from kbs.attestation.event_log.algorithms import BY_BANK
from kbs.client.attesters.event_log import PADDING, SoftwareEventLog, confidential_boot, measured_boot
from tests.attacks.test_evidence_mutations import damaged
from tests.crosscheck.differences import GO_EVENTLOG
from tests.crosscheck.opinions import Comparison, Opinion, opinion_of
from tests.crosscheck.programs import COUNT, SEED, start
from tests.kbs.attestation.event_log.real_logs import CCELS, FOLDER, TCG_LOGS, log_of, pcrs_of, registers_of


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """A log and the registers that it must lead to. `padded`: a CCEL, which fills its table up."""

    log: bytes
    registers: Mapping[int, bytes]
    bank: str
    padded: bool

    def as_asked(self) -> dict[str, Any]:
        """For the program."""
        registers = {str(index): value.hex() for index, value in self.registers.items()}
        return {"log": self.log, "bank": self.bank, "padded": self.padded, "registers": registers}


def ours(question: LogQuestion) -> Opinion:
    """What was measured into which register, by our replay."""

    def verify() -> list[str]:
        if question.padded:
            rtmrs = [question.registers[index] for index in sorted(question.registers)]
            replayed = ccel.replay(question.log, rtmrs, algorithm=BY_BANK[question.bank])
        else:
            replayed = tcg.replay(question.log, question.registers, question.bank)
        digests = ((entry["index"], entry["digests"]) for entry in replayed.claims)
        return [f"{index} {each['digest']}" for index, listed in digests for each in listed[:1]]

    found = opinion_of(verify)
    return replace(found, reason="ends in zeros") if found.accepted and question.log.endswith(bytes(8)) else found


def theirs(program: Any, question: LogQuestion) -> Opinion:
    """The same by the library."""
    found: Opinion = program.ask(question.as_asked())
    return replace(found, facts=found.facts["measured"]) if found.accepted else found


def software() -> Iterator[tuple[str, LogQuestion]]:
    """Logs of software attesters."""
    boot = confidential_boot()
    boot.runtime(4, "example.org", "Started", "{}")
    yield "confidential boot", LogQuestion(boot.to_bytes(), dict(enumerate(boot.rtmrs(), start=1)), "sha384", True)
    measured, old = measured_boot(), measured_boot(("sha1",), crypto_agile=False)
    yield "measured boot", LogQuestion(measured.to_bytes(b""), measured.registers("sha256"), "sha256", False)
    yield "SHA-1 only", LogQuestion(old.to_bytes(b""), old.registers("sha1"), "sha1", False)


def real() -> Iterator[tuple[str, LogQuestion]]:
    """Real logs in every bank that both know."""
    for name in CCELS:
        algorithm, registers = registers_of(name)
        if algorithm.bank in ("sha256", "sha384"):
            yield name, LogQuestion(log_of(name), dict(enumerate(registers, start=1)), algorithm.bank, True)
    for name, banks in TCG_LOGS.items():
        log = gzip.decompress((FOLDER / "tcg" / f"{name.removeprefix('tcg/')}.gz").read_bytes())
        for bank in banks:
            if bank in ("sha1", "sha256", "sha384"):
                yield f"{name} {bank}", LogQuestion(log, pcrs_of(name, bank), bank, False)


def witnesses() -> Iterator[tuple[str, LogQuestion]]:
    """One for each difference that no log shows."""
    boot = confidential_boot()
    registers = dict(enumerate(boot.rtmrs(), start=1))
    log = boot.to_bytes(b"")
    yield "something behind the end", LogQuestion(log + PADDING + b"x" * 40, registers, "sha384", True)
    yield "zeros behind the end", LogQuestion(log + bytes(40), registers, "sha384", True)
    first = log[:20] + b"\1" + log[21:]
    yield "first event", LogQuestion(first, registers, "sha384", True)
    yield "minor version", LogQuestion(log[:52] + b"\2" + log[53:], registers, "sha384", True)
    yield "entry without a digest", LogQuestion(log + b"\0\0\0\0\3" + bytes(11), registers, "sha384", True)
    yield "extended without an event", LogQuestion(log, registers | {4: b"\1" * 48}, "sha384", True)


def mutations(name: str, good: LogQuestion, count: int) -> Iterator[tuple[str, LogQuestion]]:
    """Three in four damaged, the others with events left out, doubled, moved or swapped."""
    random = Random(f"{SEED} {name}")
    for number in range(count):
        done, raw = damaged(good.log, good.log[::-1], random)
        yield f"{name} {number}: {done}", replace(good, log=raw)


def built(count: int) -> Iterator[tuple[str, LogQuestion]]:
    """Logs whose events were changed before they were written, against registers of the good or the changed one."""
    random = Random(f"{SEED} built")
    for number in range(count):
        good = confidential_boot()
        events = list(good.events)
        place, other = random.randrange(len(events)), random.randrange(len(events))
        kind = random.choice(("drop", "double", "swap", "type", "register", "data", "measured"))
        if kind == "drop":
            del events[place]
        elif kind == "double":
            events.insert(other, events[place])
        elif kind == "swap":
            events[place], events[other] = events[other], events[place]
        elif kind == "type":
            events[place] = replace(
                events[place], type=random.choice((0, 1, 3, 4, 5, 6, 8, 0xD, 0x80000001, 0x800000FF))
            )
        elif kind == "register":
            events[place] = replace(events[place], register=random.choice((0, 1, 2, 3, 4, 5, 23)))
        elif kind == "data":
            events[place] = replace(events[place], data=random.randbytes(random.choice((0, 1, 4, 40))))
        else:
            events[place] = replace(events[place], measured=random.randbytes(8))
        changed = SoftwareEventLog(events=events)
        rtmrs = (changed if random.random() < 0.5 else good).rtmrs()
        question = LogQuestion(changed.to_bytes(), dict(enumerate(rtmrs, start=1)), "sha384", True)
        yield f"built {number}: {kind} {place} {other}", question


def compared(questions: Iterator[tuple[str, LogQuestion]]) -> Comparison:
    program = start("eventlog")
    comparison = Comparison(GO_EVENTLOG)
    for name, question in questions:
        comparison.add(name, ours(question), theirs(program, question))
    program.close()
    comparison.check()
    return comparison


def test_named() -> None:
    def every() -> Iterator[tuple[str, LogQuestion]]:
        yield from software()
        yield from real()
        yield from witnesses()

    compared(every()).check_all_seen()


def test_register_of_ones() -> None:
    """It ends a log at an event of register 0xFFFFFFFF, we where the type is all ones too; else it is unverified."""
    boot = confidential_boot()
    boot.events.insert(1, replace(boot.events[0], register=0xFFFFFFFF))
    question = LogQuestion(boot.to_bytes(), dict(enumerate(boot.rtmrs()[:4], start=1)), "sha384", True)
    program = start("eventlog")
    assert ours(question).accepted
    assert "failed to replay" in theirs(program, question).reason
    program.close()


def test_mutations() -> None:
    def every() -> Iterator[tuple[str, LogQuestion]]:
        for name, good in software():
            yield from mutations(name, good, COUNT)
        yield from built(COUNT)

    found = compared(every())
    assert found.refused > COUNT
    assert found.accepted > COUNT / 10
