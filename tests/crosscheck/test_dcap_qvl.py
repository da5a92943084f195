"""The same quotes and bundles through `dcap-qvl`, which shares no code with us. What it answers is no authority."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain

import dcap_qvl
import pytest

from tests.crosscheck import dcap
from tests.crosscheck.differences import DCAP_QVL
from tests.crosscheck.opinions import Comparison, Opinion
from tests.crosscheck.programs import COUNT, SEED


def theirs(question: dcap.DcapQuestion) -> Opinion:
    """Status and advisories, by the library."""
    try:
        given = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(dict(question.collateral)))
        report = dcap_qvl.verify_with_root_ca(question.quote, given, question.root, int(question.at.timestamp()))
    except ValueError as error:
        return Opinion(False, str(error))
    return Opinion(True, facts=(report.status, list(report.advisory_ids)))


def compared(questions: Iterator[tuple[str, dcap.DcapQuestion]]) -> Comparison:
    comparison = Comparison(DCAP_QVL)
    for name, question in questions:
        comparison.add(name, dcap.ours(question), theirs(question))
    comparison.check()
    return comparison


def test_named() -> None:
    """Published cases, real quotes with the collateral of each other, and a witness of each difference."""
    found = compared(chain(dcap.published(), dcap.real(), dcap.witnesses()))
    found.check_all_seen()
    assert found.accepted > 30


@pytest.mark.parametrize("kind", dcap.KINDS)
def test_mutations(kind: str) -> None:
    found = compared(dcap.mutations(kind, COUNT, SEED))
    assert found.refused > COUNT / 2
    assert found.accepted > COUNT / 20
