"""`kbs policy lint`, `check`, `fmt`: what is wrong with a policy, before anybody uploads it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from kbs.cli.output import click_echo, done, print_json, print_table, printable_code, warn
from kbs.cli.policy_files import PATH, PolicyFile, policy_files, rewrite
from kbs.cli.policy_where import Where, anywhere
from kbs.policy.lint import Severity

_STRICT = click.option("--strict", is_flag=True, help="Warnings count as errors.")


@click.command("lint")
@PATH
@_STRICT
@anywhere
def lint_command(path: Path, strict: bool, kind: str | None, where: Where, as_json: bool) -> None:
    """Look for known mistakes in a policy, or in all below a folder.

    Exits 1 for an error, which an upload would be refused for; with --strict also for a warning.
    """
    with where.tools() as tools:
        found = [(file, tools.lint(file.kind, file.text)) for file in policy_files(path, kind)]
    if as_json:
        print_json([{"file": str(file.path), **document} for file, document in found])
    else:
        _show(found)
    if any(_counts(each, strict=strict) for _, document in found for each in document["findings"]):
        raise click.exceptions.Exit(1)


@click.command("check")
@PATH
@_STRICT
@anywhere
def check_command(path: Path, strict: bool, kind: str | None, where: Where, as_json: bool) -> None:
    """Do all that an upload does, but set nothing: lint, compile, try it out on a few inputs, run its tests."""
    with where.tools() as tools:
        found = [
            {"file": str(file.path), **tools.check(file.kind, file.text, file.tests_text())}
            for file in policy_files(path, kind)
        ]
    bad = False
    for document in found:
        bad |= not document["ok"] or (strict and bool(document["warnings"]))
    if as_json:
        print_json(found)
    else:
        for document in found:
            _show_checked(document)
    if bad:
        raise click.exceptions.Exit(1)


@click.command("fmt")
@PATH
@click.option("--check", "only_check", is_flag=True, help="Change nothing; show what would change, and exit 1.")
@anywhere
def fmt_command(path: Path, only_check: bool, kind: str | None, where: Where, as_json: bool) -> None:
    """Write policies and their tests in the one usual form."""
    del kind
    files = sorted(path.rglob("*.rego")) if path.is_dir() else [path]
    if not files:
        raise click.UsageError(f"{path}: no policies")
    changed: list[str] = []
    with where.tools() as tools:
        for file in files:
            old = file.read_bytes()
            answer = tools.format(old)
            if not answer["changed"]:
                continue
            changed.append(str(file))
            new = str(answer["text"])
            if not only_check:
                rewrite(file, new)
            if not as_json:
                _show_formatted(file, old.decode("utf-8", "replace"), new, only_check=only_check)
    if as_json:
        print_json({"changed": changed, "written": not only_check})
    if changed and only_check:
        raise click.exceptions.Exit(1)


def _counts(finding: dict[str, Any], *, strict: bool) -> bool:
    return strict or finding["severity"] == Severity.ERROR


def _show(found: list[tuple[PolicyFile, dict[str, Any]]]) -> None:
    rows = [
        (
            f"{file.path}:{each['line']}:{each['column']}" if each["line"] else file.path,
            each["severity"],
            each["rule"],
            each["text"],
        )
        for file, document in found
        for each in document["findings"]
    ]
    if rows:
        print_table(("place", "severity", "rule", "what"), rows)
        return
    done("clean", f"{len(found)} {'policy' if len(found) == 1 else 'policies'}")


def _show_checked(document: dict[str, Any]) -> None:
    for each in document["warnings"]:
        warn(f"{document['file']}: {each}")
    if document["ok"]:
        done("good", f"{document['kind']} policy {document['file']}, sha256 {document['digest'][:16]}")
    else:
        print_table(("refused", "why"), [(document["file"], document["error"])])


def _show_formatted(file: Path, old: str, new: str, *, only_check: bool) -> None:
    if not only_check:
        done("written", str(file))
        return
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), str(file), "formatted", lineterm="", n=1):
        click_echo(printable_code(line))
