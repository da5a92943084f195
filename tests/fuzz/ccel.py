"""Crypto-agile event logs, and claims of every event."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.event_log import claims
from kbs.attestation.event_log.algorithms import SHA256, SHA384, SM3
from kbs.attestation.event_log.records import parse_crypto_agile
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    for algorithm in (SHA256, SHA384, SM3):
        with contextlib.suppress(EvidenceRejected):
            for event in parse_crypto_agile(data, algorithm):
                claims.entry(event, algorithm)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("eventlog/*.gz", "eventlog/tcg/*.gz")
