"""`kbs audit`: verify the audit log and read it, from the data directory alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.markup import escape

from kbs import config
from kbs.audit.verify import VerificationReport, verify
from kbs.cli import records
from kbs.cli.connection import walled
from kbs.cli.output import click_echo, console, print_json, printable, to_seconds
from kbs.errors import ConfigInvalid, ResourceNotFound
from kbs.tokens.keys import load_signing_key

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA: Final = click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Data directory."
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ENVELOPE: Final = frozenset({"n", "time", "kind", "decision", "prev"})
_SHOWN: Final = (
    *("actor", "what", "method", "plugin", "path", "tee", "status", "reason"),
    *("rule", "action", "version", "names", "subject", "role", "token_id"),
)


@click.group("audit", short_help="The audit log: verify, tail, show.")
def audit_group() -> None:
    """The audit log: every decision, chained and signed. Reads files; no broker needs to run."""


@audit_group.command("verify")
@_DATA
@click.option("--head", type=_FILE, help="A signed head kept elsewhere: what it vouches for must be in the log.")
@click.option("--log", "log", type=_FILE, help="Verify this file, against --head or else the head of --data.")
@_JSON
@walled
def verify_command(data: Path, head: Path | None, log: Path | None, as_json: bool) -> None:
    """Prove that no record was changed, inserted, moved or cut off. Exits 0 if so, else 1.

    A log and a head that were both taken back to an earlier state agree with each other; only a head that is kept
    elsewhere shows that. Copy DATA/audit-head away now and then, and name the copy with --head.
    """
    settings = config.load(data)
    own_head = data / settings.audit.head
    path = log or data / settings.audit.log
    report = verify(
        path,
        own_head if log is None or head is None else head,
        _public_key(data / settings.keys.audit),
        older_head=head if log is None else None,
    )
    if as_json:
        print_json({"log": str(path), **asdict(report)})
    else:
        _show_report(path, report)
    if not report.ok:
        raise click.exceptions.Exit(1)


@audit_group.command("tail")
@_DATA
@click.option("-n", "--lines", "count", type=click.IntRange(1, 100_000), default=20, show_default=True)
@_JSON
@walled
def tail_command(data: Path, count: int, as_json: bool) -> None:
    """List the last records. Nothing is verified."""
    found = records.last(records.log_path(data), count)
    if as_json:
        print_json(found)
        return
    out = console()
    for record in found:  # lines, not a table: what is long stands last and wraps, ids stay whole
        head = f"{record.get('n', '?'):>6}  {to_seconds(record.get('time'))}  {record.get('decision')}"
        kind = escape(printable(f"{record.get('kind')!s:<20}"))
        out.print(f"[dim]{escape(printable(head))}[/]  [bold]{kind}[/] {escape(printable(_what(record)))}")


@audit_group.command("show")
@click.argument("decision", metavar="ID")
@_DATA
@_JSON
@walled
def show_command(decision: str, data: Path, as_json: bool) -> None:
    """Print all records of the decision ID. `kbs explain ID` says what they mean."""
    found = records.find(records.log_path(data), decision)
    if not found:
        raise ResourceNotFound(f"no decision {decision} in the audit log")
    if as_json:
        print_json(found)
        return
    for record in found:
        console().print(f"[bold]{escape(printable(str(record.get('kind'))))}[/]")
        for name, value in record.items():
            if name != "kind":
                click_echo(printable(f"  {name:<12} {value if isinstance(value, str) else json.dumps(value)}"))


def _public_key(path: Path) -> Ed25519PublicKey:
    public = load_signing_key(path).public
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigInvalid(f"key file {path}: the audit key is Ed25519")
    return public


def _show_report(path: Path, report: VerificationReport) -> None:
    out = console()
    if report.ok:
        out.print(f"[green]whole[/]  {escape(str(path))}: {report.lines} records, {report.signed} of them signed for")
    else:
        out.print(f"[bold red]NOT WHOLE[/]  {escape(str(path))}: {report.lines} records")
    for problem in report.problems:
        out.print(f"  [red]{problem.code}[/]  {escape(printable(problem.text))}")
    for note in report.notes:
        out.print(f"  [dim]note: {escape(printable(note))}[/]")


def _what(record: Mapping[str, Any]) -> str:
    """The members that say most, in one cell."""
    known = [name for name in _SHOWN if name in record]
    rest = [name for name in record if name not in _ENVELOPE] if not known else []
    return " ".join(f"{name}={_short(record[name])}" for name in (*known, *rest[:3]))


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 60 else text[:59] + "…"
