"""`kbs policy test`, `coverage`: Rego tests of authors, with claims of every TEE at hand as `data.fixtures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kbs.cli.connection import walled
from kbs.cli.output import done, print_json, print_table
from kbs.cli.policy_files import PATH, PolicyFile, policy_files, tool_options, workbench
from kbs.policy.workbench import Coverage, TestOutcome, Workbench


@click.command("test")
@PATH
@click.option("--run", "only", metavar="REGEX", help="Only tests whose names match.")
@tool_options
@walled
def test_command(path: Path, only: str | None, kind: str | None, opa: Path | None, as_json: bool) -> None:
    """Run NAME_test.rego against NAME.rego, or all pairs below a folder.

    Tests find claims as data.fixtures.snp.good, .debug and so on for every TEE, reference values that approve the good
    ones as data.references.snp, and tokens as data.tokens.snp.good. Exits 1 when one fails, or when there is none.
    """
    tool = workbench(opa)
    found = [(file, _outcomes(tool, file, only)) for file in _tested(path, kind)]
    failed = [outcome for _, outcomes in found for outcome in outcomes if not outcome.passed]
    count = sum(len(outcomes) for _, outcomes in found)
    if as_json:
        print_json([{"file": str(file.path), "tests": [each.document() for each in every]} for file, every in found])
    else:
        rows = [
            (f"{file.tests}:{each.line}", each.name, each.why)
            for file, outcomes in found
            for each in outcomes
            if not each.passed
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
@tool_options
@walled
def coverage_command(path: Path, fail_under: float, kind: str | None, opa: Path | None, as_json: bool) -> None:
    """Say what of a policy its tests reach, and which lines they do not."""
    tool = workbench(opa)
    found = [(file, _covered(tool, file)) for file in _tested(path, kind)]
    if as_json:
        print_json([_document(file, coverage) for file, coverage in found])
    else:
        print_table(
            ("policy", "covered", "lines no test reaches"),
            ((file.path, f"{coverage.percent:.0f} %", _lines(coverage)) for file, coverage in found),
        )
    if any(coverage.percent < fail_under for _, coverage in found):
        raise click.exceptions.Exit(1)


def _tested(path: Path, kind: str | None) -> list[PolicyFile]:
    found = [file for file in policy_files(path, kind) if file.tests is not None]
    if not found:
        raise click.UsageError(f"{path}: no tests; those of NAME.rego are NAME_test.rego beside it")
    return found


def _outcomes(tool: Workbench, file: PolicyFile, only: str | None) -> list[TestOutcome]:
    assert file.tests is not None
    return tool.test(file.kind, file.text, file.tests.read_bytes(), only=only)


def _covered(tool: Workbench, file: PolicyFile) -> Coverage:
    assert file.tests is not None
    return tool.cover(file.kind, file.text, file.tests.read_bytes())


def _document(file: PolicyFile, coverage: Coverage) -> dict[str, Any]:
    return {"file": str(file.path), "percent": coverage.percent, "missed": [list(each) for each in coverage.missed]}


def _lines(coverage: Coverage) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in coverage.missed)
