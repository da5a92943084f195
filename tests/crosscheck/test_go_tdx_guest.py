"""TDX quotes of version 4, the only one that it knows, through `go-tdx-guest`.

It accepts a platform that is up to date and refuses all others, so for this comparison we do the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from tests.crosscheck import dcap
from tests.crosscheck.differences import GO_TDX_GUEST
from tests.crosscheck.opinions import Comparison, Opinion
from tests.crosscheck.programs import COUNT, SEED, start


def ours(question: dcap.DcapQuestion) -> Opinion:
    """Our verdict, where every other status than UpToDate is a refusal."""
    found = dcap.ours(question)
    if found.accepted and found.facts[0] != "UpToDate":
        return Opinion(False, found.facts[0])
    return Opinion(found.accepted, found.reason)


def compared(questions: Iterator[tuple[str, dcap.DcapQuestion]]) -> Comparison:
    program = start("tdx")
    comparison = Comparison(GO_TDX_GUEST)
    for name, question in questions:
        if question.quote[:2] == b"\4\0" and question.quote[4:8] == b"\x81\0\0\0":
            given = dict(question.collateral)
            asked = {"quote": question.quote, "collateral": given, "root": question.root, "now": question.at}
            comparison.add(name, ours(question), program.ask(asked))
    program.close()
    comparison.check()
    return comparison


def with_distribution_points() -> Iterator[tuple[str, dcap.DcapQuestion]]:
    """Published cases whose root says where its list is: it asks for the list there, and refuses other roots."""
    yield from ((name, question) for name, question in dcap.published() if b"http" in question.root)


def test_named() -> None:
    """Published cases, real quotes with the collateral of each other, and a witness of each difference."""
    found = compared(chain(with_distribution_points(), dcap.real(), dcap.witnesses()))
    found.check_all_seen()
    assert found.accepted > 10


def test_mutations() -> None:
    found = compared(dcap.mutations("tdx-4", COUNT, SEED))
    assert found.refused > COUNT / 2
    assert found.accepted > COUNT / 20
