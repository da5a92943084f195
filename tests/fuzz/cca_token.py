"""CCA tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.verifiers.cca.token import read_platform, read_realm, read_token
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    for read in (read_token, read_platform, read_realm):
        with contextlib.suppress(EvidenceRejected):
            read(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("cca/*.cbor")
