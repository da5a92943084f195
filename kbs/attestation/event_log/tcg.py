"""Firmware logs of machines with a TPM: crypto-agile, or SHA-1 only.

The index of an event is the number of its PCR.

Source: TCG PC Client Platform Firmware Profile 1.06, 3.3.4 (PCR usage), 10.4.5.3 (start-up locality).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from kbs.attestation.event_log.algorithms import BY_BANK, SHA1, Algorithm
from kbs.attestation.event_log.event_types import EV_NO_ACTION
from kbs.attestation.event_log.model import Event, ReplayedLog
from kbs.attestation.event_log.records import is_crypto_agile, parse_crypto_agile, parse_sha1
from kbs.attestation.event_log.registers import PCR_NAMES, starts_of_dynamic_pcrs
from kbs.attestation.event_log.replay import replay as _replay
from kbs.errors import EventLogMalformed

FIRMWARE_PCRS: Final = range(8)
SECURE_BOOT_PCR: Final = 7

_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_LOCALITIES: Final = (0, 3, 4)


def replay(
    log: bytes,
    pcrs: Mapping[int, bytes],
    bank: str,
    *,
    may_be_unlogged: Collection[int] = range(8, 24),
    allow_repeated_separators: bool = False,
) -> ReplayedLog:
    """Check a firmware log against the PCRs of a quote.

    Args:
        log: as `/sys/kernel/security/tpm0/binary_bios_measurements` gives it.
        pcrs: PCR values under a verified quote, by number, of the bank's digest size.
        bank: `sha1`, `sha256`, `sha384`, `sha512` or `sm3`.
        may_be_unlogged: PCRs that may have a value although the log has no event of them. By default those that the
            operating system extends, which keeps its own logs or none; they become `unlogged`.
        allow_repeated_separators: take logs with two separators in one PCR.

    Raises:
        EventLogMalformed: not a log, or one that contradicts itself.
        EventLogMismatch: a PCR has another value than its events lead to.
        KeyError: a bank that nobody knows.
    """
    algorithm = BY_BANK[bank]
    if is_crypto_agile(log):
        events = parse_crypto_agile(log, algorithm)
    elif algorithm is SHA1:
        events = parse_sha1(log)
    else:
        raise EventLogMalformed("event log has SHA-1 digests only")
    starts = starts_of_dynamic_pcrs(algorithm)
    if 0 in pcrs:
        starts[0] = (_start_of_pcr0(events, algorithm),)
    return _replay(
        events,
        pcrs,
        algorithm,
        starts=starts,
        names=PCR_NAMES,
        secure_boot_register=SECURE_BOOT_PCR,
        may_be_unlogged=may_be_unlogged,
        allow_repeated_separators=allow_repeated_separators,
    )


def _start_of_pcr0(events: Sequence[Event], algorithm: Algorithm) -> bytes:
    """PCR 0 starts at the locality that started the TPM; an event before its first extension says which."""
    for index, kind, _, data in events:
        if kind != EV_NO_ACTION:
            if index == 0:
                break
        elif index == 0 and data.startswith(_STARTUP_LOCALITY):
            if len(data) != len(_STARTUP_LOCALITY) + 1 or data[-1] not in _LOCALITIES:
                raise EventLogMalformed("event log names an impossible start-up locality")
            return bytes(algorithm.size - 1) + data[-1:]
    return bytes(algorithm.size)
