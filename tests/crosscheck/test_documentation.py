"""The tables of docs/verifiers/cross-checks.md are those of `differences`, and the versions those of the Go modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crosscheck.differences import ALL
from tests.crosscheck.opinions import Difference, Opinion

PAGE = Path("docs/verifiers/cross-checks.md").read_text()
HEAD = "| difference | stricter | reason |\n|---|---|---|\n"


def table(differences: Sequence[Difference]) -> str:
    rows = (f"| {each.name} | {each.who_is_stricter} | {each.reason} |\n" for each in differences)
    return HEAD + "".join(rows)


@pytest.mark.parametrize("name", ALL)
def test_tables(name: str) -> None:
    assert table(ALL[name]) in PAGE, f"the table of {name} should be\n{table(ALL[name])}"


@pytest.mark.parametrize("name", ALL)
def test_names_are_unique_and_reasons_given(name: str) -> None:
    assert len({each.name for each in ALL[name]}) == len(ALL[name])
    assert all(len(each.reason) > 20 for each in ALL[name])


def test_no_other_tables() -> None:
    assert PAGE.count(HEAD) == len(ALL)


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("go-")])
def test_modules_are_pinned_as_documented(name: str) -> None:
    found = re.search(rf"/{name} (v[0-9.]+)$", Path("tests/crosscheck/go/go.mod").read_text(), re.MULTILINE)
    assert found is not None
    assert f"`{name}` {found[1]}" in PAGE


def test_nothing_is_explained_twice_over() -> None:
    """A refusal on both sides, or acceptance on both, is never taken for a listed difference."""
    refused, accepted = Opinion(False, "reason"), Opinion(True, facts="facts")
    for differences in ALL.values():
        assert not any(each.explains(accepted, accepted) or each.explains(refused, refused) for each in differences)
