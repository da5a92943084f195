"""X.509 certificates and revocation lists, DER and PEM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kbs.attestation import x509
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    for load in (x509.load_certificates, x509.load_certificate, x509.load_crl):
        with contextlib.suppress(EvidenceRejected, ValueError):
            load(data)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    return vectors.files("snp/*.der", "*/*.pem", "se/cert/*")
