"""Guests that start together: what they ask vendors for, all of them together."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kbs.attestation.endorsements import endorsement_service
from kbs.attestation.model import Binding, Evidence, VerifierOptions
from kbs.client.attesters.model import SoftwareAttester
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.tdx import SoftwareTdx
from kbs.config import EndorsementSettings
from tests.bench.verifiers.subjects import AT
from tests.fakes.case_files import FACTORIES
from tests.fakes.vendors import FakeVendors

GUESTS: Final = 1000
_THREADS: Final = 64  # waiting at one time, many times what a broker has
_DELAY: Final = 0.05  # seconds until a vendor answers


@dataclass(frozen=True, slots=True)
class Asked:
    """What vendors were asked by `guests`; `distinct` of it were different questions."""

    tee: str
    guests: int
    verified: int
    requests: int
    distinct: int


def asked() -> list[Asked]:
    """SNP without a certificate beside the report, and TDX, each on one machine."""
    snp, tdx = SoftwareSnp(), SoftwareTdx()
    return [
        _together(snp, lambda data: snp.evidence(data, vek=None), FakeVendors(snp=snp, delay=_DELAY)),
        _together(tdx, tdx.evidence, FakeVendors(intel=tdx.intel, delay=_DELAY)),
    ]


def _together(attester: SoftwareAttester, evidence: Callable[[bytes], Any], vendors: FakeVendors) -> Asked:
    digests = [hashlib.sha384(number.to_bytes(4, "big")).digest() for number in range(_THREADS)]
    bodies = [evidence(digest) for digest in digests]
    verifier = FACTORIES[attester.tee](VerifierOptions(attester.options, attester.anchors))
    barrier = threading.Barrier(_THREADS)
    with tempfile.TemporaryDirectory(prefix="kbs-bench-") as folder:
        settings = EndorsementSettings(cache=Path(folder), network=True)
        source = endorsement_service(settings, Path(folder), lambda: AT, client=vendors.client(), roots=vendors.roots)

        def guest(number: int) -> int:
            given = Evidence(attester.tee, bodies[number % _THREADS])
            needs = verifier.needs(given)
            if number < _THREADS:
                barrier.wait(30)
            endorsements = source.cached(needs) or source.fetch(needs)
            return len(verifier.verify(given, endorsements, Binding(digests[number % _THREADS]), AT))

        with ThreadPoolExecutor(_THREADS) as pool:
            verified = sum(pool.map(guest, range(GUESTS)))
    counts = Counter(vendors.asked)
    return Asked(attester.tee, GUESTS, verified, counts.total(), len(counts))
