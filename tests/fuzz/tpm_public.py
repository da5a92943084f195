"""TPM2B_PUBLIC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.tpm.public import parse_public
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        parse_public(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("tpm/keylime/ak.pub", "tpm/keylime/ek.pub")
