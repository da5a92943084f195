"""`kbs policy test`, `coverage`: Rego tests of authors, with claims of every TEE at hand as `data.fixtures`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from kbs.cli.output import done, print_json, print_table
from kbs.cli.policy_files import PATH, PolicyFile, policy_files
from kbs.cli.policy_where import Where, anywhere


@click.command("test")
@PATH
@click.option("--run", "only", metavar="REGEX", help="Only tests whose names match.")
@anywhere
def test_command(path: Path, only: str | None, kind: str | None, where: Where, as_json: bool) -> None:
    """Run NAME_test.rego against NAME.rego, or all pairs below a folder.

    Tests find claims as data.fixtures.snp.good, .debug and so on for every TEE, reference values that approve the good
    ones as data.references.snp, and tokens as data.tokens.snp.good. Exits 1 when one fails, or when there is none.
    """
    with where.tools() as tools:
        found = [
            (file, tools.test(file.kind, file.text, file.tests_text() or b"", only)["tests"])
            for file in _tested(path, kind)
        ]
    failed = [outcome for _, outcomes in found for outcome in outcomes if not outcome["passed"]]
    count = sum(len(outcomes) for _, outcomes in found)
    if as_json:
        print_json([{"file": str(file.path), "tests": outcomes} for file, outcomes in found])
    else:
        rows = [
            (f"{file.tests}:{each['line']}", each["name"], each["why"])
            for file, outcomes in found
            for each in outcomes
            if not each["passed"]
        ]
        if rows:
            print_table(("place", "failed", "why"), rows)
        if count and not failed:
            done("passed", f"{count} {'test' if count == 1 else 'tests'} of {len(found)} policies")
    if not count:
        raise click.UsageError(f"{path}: no test ran")
    if failed:
        raise click.exceptions.Exit(1)


@click.command("coverage")
@PATH
@click.option("--fail-under", type=click.FloatRange(0, 100), default=0.0, help="Exit 1 below this many percent.")
@anywhere
def coverage_command(path: Path, fail_under: float, kind: str | None, where: Where, as_json: bool) -> None:
    """Say what of a policy its tests reach, and which lines they do not."""
    with where.tools() as tools:
        found = [(file, tools.coverage(file.kind, file.text, file.tests_text() or b"")) for file in _tested(path, kind)]
    if as_json:
        print_json(
            [
                {"file": str(file.path), "percent": coverage["percent"], "missed": coverage["missed"]}
                for file, coverage in found
            ]
        )
    else:
        print_table(
            ("policy", "covered", "lines no test reaches"),
            ((file.path, f"{coverage['percent']:.0f} %", _lines(coverage["missed"])) for file, coverage in found),
        )
    if any(coverage["percent"] < fail_under for _, coverage in found):
        raise click.exceptions.Exit(1)


def _tested(path: Path, kind: str | None) -> list[PolicyFile]:
    found = [file for file in policy_files(path, kind) if file.tests is not None]
    if not found:
        raise click.UsageError(f"{path}: no tests; those of NAME.rego are NAME_test.rego beside it")
    return found


def _lines(missed: Iterable[tuple[int, int]]) -> str:
    places = dict.fromkeys((first, last) for first, last in missed)  # a line may have several parts
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in places)
