"""CCEL: the event log of confidential machines with run-time measurement registers (TDX, CSV).

Registers have the log's numbers 1, 2, 3 … ; index 0 is the build-time measurement, which no event extends. The
attestation agent appends its events (AAEL) to the firmware's log, or sends a log of nothing else.

Source: UEFI 2.10, 38.4.1 (CC_MR_INDEX); Intel TDX Virtual Firmware Design Guide, 8.1; verifiers 3.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from kbs.attestation.event_log.algorithms import SHA384, Algorithm
from kbs.attestation.event_log.model import ReplayedLog
from kbs.attestation.event_log.records import parse_crypto_agile
from kbs.attestation.event_log.replay import replay as _replay

SECURE_BOOT_REGISTER: Final = 1  # takes what PCR 1 and PCR 7 take on machines with a TPM


def replay(
    log: bytes,
    rtmrs: Sequence[bytes],
    *,
    algorithm: Algorithm = SHA384,
    may_be_unlogged: Collection[int] = (),
    allow_repeated_separators: bool = False,
) -> ReplayedLog:
    """Check a CCEL against the registers of a quote.

    Args:
        log: as sent, with or without padding behind its end.
        rtmrs: values of the registers that events with index 1, 2, … extend, all under a verified signature: RTMR0 to
            RTMR3 of TDX, rtmr1 to rtmr4 of CSV (its rtmr0 is the measurement). `algorithm.size` bytes each.
        algorithm: SHA-384 for TDX; `algorithms.SM3` for CSV.
        may_be_unlogged: indexes that may have a value although the log has no event of them; none by default, since
            a log without a register's events is no log of this machine.
        allow_repeated_separators: take logs of OVMF before 2024, which measures two separators into register 1.

    Raises:
        EventLogMalformed: not a log, or one that contradicts itself.
        EventLogMismatch: a register has another value than its events lead to.
    """
    return _replay(
        parse_crypto_agile(log, algorithm),
        dict(enumerate(rtmrs, start=1)),
        algorithm,
        starts={},
        names={index: f"register {index}" for index in range(1, len(rtmrs) + 1)},
        secure_boot_register=SECURE_BOOT_REGISTER,
        may_be_unlogged=may_be_unlogged,
        allow_repeated_separators=allow_repeated_separators,
    )
