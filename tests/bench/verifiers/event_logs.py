"""Event logs of growing size: of a real guest's entries, and of entries as small as a log of this size may have, which
cost most.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Final

from kbs.attestation.event_log import ccel
from kbs.attestation.event_log.algorithms import SHA384
from kbs.attestation.event_log.model import MAX_EVENTS, Event
from kbs.attestation.event_log.records import parse_crypto_agile
from kbs.client.attesters.event_log import ACTION, IPL, SEPARATOR, VARIABLE_BOOT, SoftwareEventLog

KIB: Final = 1 << 10
SIZES: Final = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 << 20)
LIMIT_MS: Final = 50.0  # for the largest
_ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class Timed:
    """One log. `size`: octets."""

    kind: str
    size: int
    events: int
    milliseconds: float


@cache
def _guest() -> list[Event]:
    path = Path(__file__).parents[2] / "vectors" / "eventlog" / "CCEL_data_grub_gke.gz"
    events = parse_crypto_agile(gzip.decompress(path.read_bytes()), SHA384)
    return [event for event in events if 1 <= event.register <= 4 and event.type != SEPARATOR]


def _recorded(log: SoftwareEventLog, number: int) -> None:
    event = _guest()[number % len(_guest())]
    log.measure(event.register, event.type, event.data)


def _actions(log: SoftwareEventLog, number: int) -> None:
    log.measure(2, ACTION, b"Calling EFI Application %07d" % number)


def _firmware(log: SoftwareEventLog, number: int) -> None:
    log.variable(1, f"Variable{number}", bytes(40))
    log.variable(1, f"Boot{number:04X}", bytes(40), kind=VARIABLE_BOOT)
    log.image(2, b"a program", f"\\EFI\\{number}")
    log.measure(3, IPL, b"grub_cmd: set number=%d" % number, b"set number=%d" % number)
    log.command_line(3, f"console=hvc0 {number}")


def _agent(log: SoftwareEventLog, number: int) -> None:
    log.runtime(4, "a.example", "PullImage", f'{{"image":"i{number}"}}')


KINDS: Final[Mapping[str, Callable[[SoftwareEventLog, int], None]]] = {
    "recorded": _recorded,
    "actions": _actions,
    "firmware": _firmware,
    "agent (AAEL)": _agent,
}


def make(kind: str, size: int) -> SoftwareEventLog:
    """A log of `kind` of about `size` octets, or with as many events as a log may have."""
    log = SoftwareEventLog()
    octets, counted = len(log.to_bytes(b"")), 0
    while octets < size and len(log.events) < MAX_EVENTS - 5:
        KINDS[kind](log, len(log.events))
        octets += sum(len(log.entry(event)) for event in log.events[counted:])
        counted = len(log.events)
    return log


def timed(kind: str, size: int) -> Timed:
    """Parse, replay and make claims; median of some rounds of CPU time."""
    log = make(kind, size)
    raw, registers = log.to_bytes(b""), log.rtmrs()
    found = []
    for _ in range(_ROUNDS):
        start = time.thread_time()
        replayed = ccel.replay(raw, registers)
        found.append(time.thread_time() - start)
        del replayed  # outside of the measured time, as in a broker after its answer
    return Timed(kind, len(raw), len(log.events), median(found) * 1e3)
