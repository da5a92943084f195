"""Logs of the attestation agent standing alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from kbs.attestation.event_log import runtime
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        runtime.replay(data, {17: bytes(32)}, "sha256")


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    for text in vectors.files("eventlog/aael-vectors.json"):
        for event in json.loads(text)["events"]:
            yield bytes.fromhex(event["tcg2_entry_vtpm_sha256_pcr17_hex"])
