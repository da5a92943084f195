"""Nitro attestation documents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.verifiers.nitro.document import read_document, read_message
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        read_document(read_message(data, allow_trailing_bytes=True).payload)
    with contextlib.suppress(EvidenceRejected):
        read_document(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("nitro/*.cbor")
