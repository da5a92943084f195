"""SNP reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.sev.report import parse
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        parse(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("snp/*.report.bin")
