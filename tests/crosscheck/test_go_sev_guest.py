"""SNP reports through `go-sev-guest`: `verify` for signature and chain, `validate` for report against certificate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from tests.crosscheck import snp
from tests.crosscheck.differences import GO_SEV_GUEST
from tests.crosscheck.opinions import Comparison
from tests.crosscheck.programs import COUNT, SEED, start


def compared(questions: Iterator[tuple[str, snp.SnpQuestion]]) -> Comparison:
    program = start("snp")
    comparison = Comparison(GO_SEV_GUEST)
    for name, question in questions:
        comparison.add(name, snp.ours(question), program.ask(question.as_asked()))
    program.close()
    comparison.check()
    return comparison


def test_named() -> None:
    """Published cases, real reports under each product's roots, and a witness of each difference."""
    found = compared(chain(snp.published(), snp.real(), snp.witnesses()))
    found.check_all_seen()
    assert found.accepted > 15


@pytest.mark.parametrize("kind", snp.KINDS)
def test_mutations(kind: str) -> None:
    found = compared(snp.mutations(kind, COUNT, SEED))
    assert found.refused > COUNT / 2
    assert found.accepted > COUNT / 20
