"""Intel quotes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.dcap.quote import parse_quote
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        parse_quote(data)
    with contextlib.suppress(EvidenceRejected):
        parse_quote(data, allow_trailing_bytes=True)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("tdx/*.dat", "sgx/*.dat")
