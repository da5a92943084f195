"""Data of single events: the first byte picks the decoder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from kbs.attestation.event_log import aael
from kbs.attestation.event_log.algorithms import SHA256, SHA384
from kbs.attestation.event_log.event_types import EVENT_TYPES
from kbs.attestation.event_log.records import parse_crypto_agile
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors

KINDS = sorted(number for number, kind in EVENT_TYPES.items() if kind.decode)


def check(data: bytes) -> None:
    """Decode; refuse only as documented; give JSON."""
    kind = EVENT_TYPES[KINDS[data[0] % len(KINDS)]] if data else None
    with contextlib.suppress(ValueError):
        if kind is not None and kind.decode is not None:
            json.dumps(kind.decode(data[1:])).encode()
    with contextlib.suppress(ValueError):
        aael.parse(data.decode())


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from: one event of each type in each real log."""
    for log in vectors.files("eventlog/*.gz", "eventlog/tcg/*.gz"):
        for algorithm in (SHA256, SHA384):
            with contextlib.suppress(EvidenceRejected):
                by_type = {event.type: event for event in parse_crypto_agile(log, algorithm)}
                for number in by_type.keys() & set(KINDS):
                    yield bytes((KINDS.index(number),)) + by_type[number].data
