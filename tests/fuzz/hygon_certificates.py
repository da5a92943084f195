"""Certificates of Hygon, binary."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator

from kbs.attestation.hygon.certificates import Usage, parse_ca, parse_csv
from kbs.errors import EvidenceRejected
from tests.fuzz import vectors

CA_SIZE = 832


def check(data: bytes) -> None:
    """Parse; refuse only as documented."""
    for usage in Usage:
        with contextlib.suppress(EvidenceRejected):
            parse_ca(data, usage)
        with contextlib.suppress(EvidenceRejected):
            parse_csv(data, usage)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    for case in vectors.cases("csv"):
        pair = base64.b64decode(case["endorsements"]["hsk_cek"])
        yield pair[:CA_SIZE]
        yield pair[CA_SIZE:]
        yield base64.b64decode(case["anchors"]["hrk"])
