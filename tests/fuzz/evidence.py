"""Whole verifiers: evidence as JSON, the first byte picks a case that gives everything beside it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from kbs import strict_json
from kbs.attestation.model import Evidence
from kbs.errors import EvidenceRejected, MalformedMessage, PayloadTooLarge
from tests.fakes import case_files

FOLDER = Path(__file__).parents[1] / "vectors"
CASES = [
    case_files.load(path)
    for folder in sorted(FOLDER.glob("*/synthetic"))
    for path in sorted(folder.glob("ok*.json"))
    if json.loads(path.read_text())["tee"] in case_files.FACTORIES
]
VERIFIERS = [(case, case.verifier()) for case in CASES]


def check(data: bytes) -> None:
    """Verify; refuse only as documented."""
    if not data:
        return
    case, verifier = VERIFIERS[data[0] % len(VERIFIERS)]
    with contextlib.suppress(EvidenceRejected, MalformedMessage, PayloadTooLarge):
        evidence = Evidence(case.evidence.tee, strict_json.decode(data[1:]))
        verifier.needs(evidence)
        given = verifier.endorsements_from(evidence, case.endorsements)
        verifier.verify(evidence, given, case.binding, case.at)


def seeds() -> Iterator[bytes]:
    """What a fuzzer starts from."""
    for number, case in enumerate(CASES):
        yield bytes((number,)) + json.dumps(case.evidence.body).encode()
