"""The attestation agent's log (AAEL) standing alone, as guests without a CCEL keep it (PCR 17 by default).

TCG_PCR_EVENT2 entries of type EV_EVENT_TAG, ended by padding or by nothing, with or without a Specification ID event
before them. The agent writes one that announces SHA-384 and SM3 whatever the bank of its entries is: it decides nothing
here. Source: guest-components 5.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kbs.attestation.event_log.algorithms import ALGORITHMS, BY_BANK
from kbs.attestation.event_log.event_types import EV_EVENT_TAG
from kbs.attestation.event_log.model import ReplayedLog
from kbs.attestation.event_log.records import Table, check_size, is_crypto_agile, parse_entries, parse_table
from kbs.attestation.event_log.registers import PCR_NAMES, starts_of_dynamic_pcrs
from kbs.attestation.event_log.replay import replay as _replay
from kbs.errors import EventLogMalformed

DEFAULT_PCR: Final = 17
_EVERY_ALGORITHM: Final = {algorithm.id: algorithm.size for algorithm in ALGORITHMS}


def replay(log: bytes, pcrs: Mapping[int, bytes], bank: str) -> ReplayedLog:
    """Check a log of the attestation agent against the PCRs that it extends.

    The PCRs that it names are compared, and 17: a log without the events of an agent that keeps to its defaults is
    refused. A PCR that somebody else extends as well cannot be the agent's: the log would not lead to its value.

    Args:
        log: as the agent keeps it.
        pcrs: PCR values under a verified quote, by number, of the bank's digest size.
        bank: `sha256`, `sha384`, `sha512` or `sm3`.

    Raises:
        EventLogMalformed: not such a log, or an event that is not the agent's.
        EventLogMismatch: a PCR has another value than its events lead to.
        KeyError: a bank that nobody knows.
    """
    algorithm = BY_BANK[bank]
    check_size(log)
    first = parse_table(log).first_entry if is_crypto_agile(log) else 0
    events = parse_entries(log, Table(_EVERY_ALGORITHM, first), algorithm)
    if any(event.type != EV_EVENT_TAG for event in events):
        raise EventLogMalformed("runtime log has an entry that is not a tagged event")
    named = {DEFAULT_PCR, *(event.register for event in events)}
    return _replay(
        events,
        {index: value for index, value in pcrs.items() if index in named},
        algorithm,
        starts=starts_of_dynamic_pcrs(algorithm),
        names=PCR_NAMES,
        secure_boot_register=-1,
    )
