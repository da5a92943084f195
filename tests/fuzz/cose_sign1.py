"""COSE_Sign1 and the CBOR below it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation import cose
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        cose.read_sign1(data, allow_trailing_bytes=True)
    with contextlib.suppress(EvidenceRejected):
        cose.read_key(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("cca/*.cbor", "nitro/*.cbor")
