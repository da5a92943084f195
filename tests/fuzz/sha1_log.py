"""Event logs of the old format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.event_log import claims
from kbs.attestation.event_log.algorithms import SHA1
from kbs.attestation.event_log.records import parse_sha1
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        for event in parse_sha1(data):
            claims.entry(event, SHA1)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("eventlog/tcg/debian-10.gz")
