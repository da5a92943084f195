"""`kbs k8s lint`: is what was rendered fit to be installed?"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from kbs.cli.output import done, fail, print_json, print_table
from kbs.errors import MalformedMessage
from kbs.k8s.lint import Finding, Rendered, Severity, lint, read
from kbs.k8s.lint.model import Object


@click.command("lint", short_help="Look for what is unsafe in rendered manifests.")
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True, dir_okay=False, path_type=Path))
@click.option("--dev", is_flag=True, help="Take insecure switches, and a store that does not last.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lint_command(files: tuple[Path, ...], dev: bool, strict: bool, as_json: bool) -> None:
    """Look for what is unsafe in manifests, all FILES together; `-` reads them from a pipe:

        kubectl kustomize k8s/overlays/prod | kbs k8s lint -

    Exits 1 for an error, with --strict also for a warning.
    """
    objects = [each for file in files for each in _read(file)]
    if not objects:
        fail("there are no manifests", hint="kubectl kustomize FOLDER | kbs k8s lint -")
        raise click.exceptions.Exit(1)
    findings = lint(Rendered(tuple(objects), dev=dev))
    if as_json:
        print_json({"manifests": len(objects), "findings": [dataclasses.asdict(each) for each in findings]})
    else:
        _show(objects, findings)
    if any(strict or each.severity is Severity.ERROR for each in findings):
        raise click.exceptions.Exit(1)


def _read(file: Path) -> list[Object]:
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return read(raw)
    except OSError as err:
        raise MalformedMessage(f"{file}: {err.strerror}") from None
    except MalformedMessage as err:
        raise MalformedMessage(f"{file}: {err}") from None


def _show(objects: list[Object], findings: list[Finding]) -> None:
    if findings:
        rows = [(each.severity, each.rule, each.place, each.text, each.fix) for each in findings]
        print_table(("severity", "rule", "place", "what", "do"), rows)
    if not any(each.severity is Severity.ERROR for each in findings):
        warned = f", {len(findings)} warnings" if findings else ""
        done("good", f"{len(objects)} manifests{warned}")
