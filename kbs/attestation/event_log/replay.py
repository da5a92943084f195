"""Replay: registers recomputed from a log and compared with what a quote says; claims made from what held.

1. Every event of a quoted register extends it: R = H(R ‖ digest). EV_NO_ACTION extends nothing (its digest is zero:
   the parser saw to that), so that no event hides from policy by calling itself so.
2. The result equals the quoted value, for every quoted register. A quoted register without events has its start value.
3. Events of registers that nobody quoted are kept apart as unverified.
4. A register has one separator at most. Facts of the boot phase come from before the first one only, and a separator is
   known by its digest: calling it something else does not move the end of the boot phase.

Source: TCG PC Client Platform Firmware Profile 1.06, 10.4.5 and 3.3.4; Intel TDX Virtual Firmware Design Guide, 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from kbs.attestation.event_log import claims
from kbs.attestation.event_log.aael import TAG_NAME
from kbs.attestation.event_log.algorithms import Algorithm
from kbs.attestation.event_log.event_types import EV_EFI_VARIABLE_DRIVER_CONFIG, EV_NO_ACTION, EV_SEPARATOR
from kbs.attestation.event_log.model import Event, RegisterLog, ReplayedLog, RuntimeEvent
from kbs.attestation.event_log.registers import Starts, leads_to, starts_of
from kbs.attestation.model import Json
from kbs.errors import EventLogMalformed, EventLogMismatch

_GLOBAL_VARIABLE: Final = "61dfe48b-ca93-d211-aa0d-00e098032b8c"  # EFI_GLOBAL_VARIABLE, in stored byte order
_SEPARATORS: Final = (bytes(4), b"\xff" * 4)
_SECURE_BOOT: Final[Mapping[str, bool]] = {"AQ==": True, "AA==": False, "": False}


def replay(
    events: Sequence[Event],
    quoted: Mapping[int, bytes],
    algorithm: Algorithm,
    *,
    starts: Starts,
    names: Mapping[int, str],
    secure_boot_register: int,
    may_be_unlogged: Collection[int] = (),
    allow_repeated_separators: bool = False,
) -> ReplayedLog:
    """Check a parsed log against quoted registers.

    Args:
        events: in the order of the log.
        quoted: register values under a verified signature, by the log's index, `algorithm.size` bytes each.
        starts: values before the first event.
        names: how refusals call the registers.
        secure_boot_register: index that the variable SecureBoot is measured into.
        may_be_unlogged: registers that may have a value although the log has no event of them; reported as `unlogged`.
        allow_repeated_separators: take logs of firmware that measures two separators into one register.

    Raises:
        EventLogMismatch: a register has another value than its events lead to.
        EventLogMalformed: two separators in one register.
    """
    counts, unlogged = _check(events, quoted, algorithm, starts, names, may_be_unlogged)
    covered: list[dict[str, Json]] = []
    unverified: list[dict[str, Json]] = []
    separators: set[int] = set()
    separated: set[int] = set()
    separator_digests = [algorithm.hash(value) for value in _SEPARATORS]
    secure_boot: list[bool | None] = []
    recomputed = dict.fromkeys(quoted, 0)
    runtime: list[RuntimeEvent] = []
    for event in events:
        index, kind, digest, _ = event
        if kind == EV_NO_ACTION or index not in recomputed:
            unverified.append(claims.unverified_entry(event, algorithm))
            continue
        entry = claims.entry(event, algorithm)
        covered.append(entry)
        if kind == EV_SEPARATOR:
            if index in separators and not allow_repeated_separators:
                # What a boot loader or kernel logs behind the first could pass for the work of firmware.
                raise EventLogMalformed("event log has two separators in one register")
            separators.add(index)
        if kind == EV_SEPARATOR or digest in separator_digests:
            separated.add(index)
        if entry["digest_covers"] is claims.UNKNOWN:
            continue
        recomputed[index] += 1
        details = entry["details"]
        if "data" in details and details.get("unicode_name") == TAG_NAME and entry["digest_matches_event"]:
            said = details["data"]
            runtime.append(RuntimeEvent(index, said["domain"], said["operation"], said["content"]))
        elif kind == EV_EFI_VARIABLE_DRIVER_CONFIG and index == secure_boot_register and index not in separated:
            secure_boot += _secure_boot(details)
    spoken = Counter(event.register for event in runtime)
    return ReplayedLog(
        claims=covered,
        unverified=unverified,
        runtime_events=tuple(runtime),
        registers=tuple(
            RegisterLog(index, counts[index], recomputed[index], spoken[index])
            for index in sorted(quoted)
            if index not in unlogged  # no events of it would look like none that are wrong
        ),
        unlogged=unlogged,
        secure_boot=secure_boot[0] if len(secure_boot) == 1 and secure_boot_register in separated else None,
    )


def _check(
    events: Sequence[Event],
    quoted: Mapping[int, bytes],
    algorithm: Algorithm,
    starts: Starts,
    names: Mapping[int, str],
    may_be_unlogged: Collection[int],
) -> tuple[dict[int, int], tuple[int, ...]]:
    """Steps 1 and 2. Returns how many events each quoted register has, and which of those without were extended."""
    if not quoted or any(len(value) != algorithm.size for value in quoted.values()):
        raise ValueError("registers of another size than the algorithm's")  # a bug of the caller
    digests: dict[int, list[bytes]] = {index: [] for index in sorted(quoted)}
    for register, kind, digest, _ in events:
        if kind != EV_NO_ACTION and register in digests:
            digests[register].append(digest)
    unlogged: list[int] = []
    for register, chain in digests.items():
        value, name = quoted[register], names.get(register, f"register {register}")
        if any(leads_to(start, chain, value, algorithm) for start in starts_of(register, starts, algorithm)):
            continue
        if chain:
            raise EventLogMismatch(f"event log does not lead to the value of {name}")
        if register not in may_be_unlogged:
            raise EventLogMismatch(f"event log has no events of {name}, which was extended")
        unlogged.append(register)
    return {register: len(chain) for register, chain in digests.items()}, tuple(unlogged)


def _secure_boot(details: Mapping[str, Json]) -> list[bool | None]:
    if details.get("unicode_name") != "SecureBoot" or details.get("variable_name") != _GLOBAL_VARIABLE:
        return []
    return [_SECURE_BOOT.get(details["variable_data"])]
