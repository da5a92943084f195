"""TPMS_ATTEST."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.tpm.quote import parse_quote
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        parse_quote(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("tpm/keylime/quote.out", "az-snp-vtpm/tpm-quote.msg")
