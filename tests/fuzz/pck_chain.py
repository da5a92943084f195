"""PCK certificate chains, as quotes carry them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation.dcap.pck import load_pck_chain, read_platform
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    with contextlib.suppress(EvidenceRejected):
        leaf, _ = load_pck_chain(data)
        read_platform(leaf)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    for quote in vectors.files("tdx/*.dat", "sgx/*.dat"):
        begin = quote.find(b"-----BEGIN")
        if begin >= 0:
            yield quote[begin:]
