"""`kbs audit`: verify the audit log and read it, without a broker: from its files, or from the shared database."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from rich.markup import escape

from kbs import config
from kbs.audit.model import ORIGIN
from kbs.audit.verify import VerificationReport, verify
from kbs.cli import records
from kbs.cli.connection import walled
from kbs.cli.output import click_echo, console, done, print_json, printable, to_seconds
from kbs.clock import system_clock
from kbs.config import Settings
from kbs.errors import ConfigInvalid, ResourceNotFound
from kbs.storage.private_files import make_private_directory, open_private
from kbs.tokens.keys import load_signing_key

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA: Final = click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Data directory."
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_ACTOR: Final = "data-directory"
_ENVELOPE: Final = frozenset({"n", "time", "kind", "decision", "prev"})
_SHOWN: Final = (
    *("actor", "what", "method", "plugin", "path", "tee", "status", "reason"),
    *("rule", "action", "version", "names", "subject", "role", "token_id"),
)


@click.group("audit", short_help="The audit log: verify, tail, show, export.")
def audit_group() -> None:
    """The audit log: every decision, chained and signed. No broker needs to run."""


@audit_group.command("verify")
@_DATA
@click.option("--head", type=_FILE, help="A signed head kept elsewhere: what it vouches for must be in the log.")
@click.option("--log", "log", type=_FILE, help="Verify this file, against --head or else the head of --data.")
@_JSON
@walled
def verify_command(data: Path, head: Path | None, log: Path | None, as_json: bool) -> None:
    """Prove that no record was changed, inserted, moved or cut off. Exits 0 if so, else 1.

    A log and a head that were both taken back to an earlier state agree with each other; only a head that is kept
    elsewhere shows that. Copy DATA/audit-head away now and then, and name the copy with --head. Of brokers that share
    a database, DATA/audit-head is such a copy already.
    """
    settings = config.load(data)
    own_head, public_key = data / settings.audit.head, _public_key(data / settings.keys.audit)
    if settings.storage.kind == "postgres" and log is None:
        name, report = _verify_shared(data, settings, public_key, own_head, head)
    else:
        path = log or data / settings.audit.log
        name = str(path)
        own_head = own_head if log is None or head is None else head
        report = verify(path, own_head, public_key, older_head=head if log is None else None)
    if as_json:
        print_json({"log": name, **asdict(report)})
    else:
        _show_report(name, report)
    if not report.ok:
        raise click.exceptions.Exit(1)


@audit_group.command("tail")
@_DATA
@click.option("-n", "--lines", "count", type=click.IntRange(1, 100_000), default=20, show_default=True)
@_JSON
@walled
def tail_command(data: Path, count: int, as_json: bool) -> None:
    """List the last records. Nothing is verified."""
    with records.reading(data) as log:
        found = log.last(count)
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
    with records.reading(data) as log:
        found = log.find(decision)
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


@audit_group.command("export")
@click.argument("directory", type=click.Path(path_type=Path))
@_DATA
@_JSON
@walled
def export_command(directory: Path, data: Path, as_json: bool) -> None:
    """Copy all records and their signed head into DIRECTORY, as files that `kbs audit verify --log --head` takes.

    DIRECTORY is made, or is empty; it gets log.jsonl and audit-head. Nothing is verified on the way.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ConfigInvalid(f"{directory} is not empty; nothing was written")
    make_private_directory(directory)
    with records.reading(data) as log, os.fdopen(open_private(directory / "log.jsonl", _NEW), "wb") as file:
        head, lines = log.whole()
        count = sum(1 for line in lines if file.write(line + b"\n"))
    with os.fdopen(open_private(directory / "audit-head", _NEW), "wb") as file:
        file.write(head)
    if as_json:
        print_json({"log": str(directory / "log.jsonl"), "head": str(directory / "audit-head"), "records": count})
        return
    done("exported", f"{count} records to {directory}")
    click_echo(f"next: kbs audit verify --data DATA --log {directory}/log.jsonl --head {directory}/audit-head")


@audit_group.command("accept")
@_DATA
@_JSON
@walled
def accept_command(data: Path, as_json: bool) -> None:
    """Take a shared log as it is, after brokers refused it because their database went back.

    What is lost stays lost: records, and rules and secrets that were changed since. Look first, with `kbs audit verify`
    and `kbs policy list`. Brokers go on at once, and the log says that it was accepted.
    """
    settings = config.load(data)
    if settings.storage.kind != "postgres":
        raise ConfigInvalid("only a log in a shared database is accepted; that of files: move log and head away")
    from kbs.audit.acceptance import accept  # only where there is a database

    database = records.shared_database(data, settings)
    try:
        accepted = accept(
            database,
            data / settings.audit.head,
            _private_key(data / settings.keys.audit),
            origin=ORIGIN,
            clock=system_clock,
            actor=_ACTOR,
            decision=secrets.token_hex(16),
        )
    finally:
        database.close()
    if as_json:
        print_json({"accepted": accepted is not None, **({} if accepted is None else asdict(accepted))})
    elif accepted is None:
        click_echo("nobody doubts this log; nothing was changed")
    else:
        done(
            "accepted",
            f"{accepted.records} records, generation {accepted.generation}; refused because {accepted.doubt}",
        )


def _verify_shared(
    data: Path, settings: Settings, key: Ed25519PublicKey, own_head: Path, head: Path | None
) -> tuple[str, VerificationReport]:
    from kbs.audit.postgres_verify import verify_shared  # only where there is a database

    heads = {name: path for name, path in (("older", head), ("outside", own_head)) if path is not None}
    if not own_head.exists():  # of a machine on which no broker ran
        del heads["outside"]
    database = records.shared_database(data, settings)
    try:
        return f"postgresql {database.name}", verify_shared(database, heads, [key], origin=ORIGIN)
    finally:
        database.close()


def _private_key(path: Path) -> Ed25519PrivateKey:
    private = load_signing_key(path).private
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigInvalid(f"key file {path}: the audit key is Ed25519")
    return private


def _public_key(path: Path) -> Ed25519PublicKey:
    return _private_key(path).public_key()


def _show_report(name: str, report: VerificationReport) -> None:
    out = console()
    if report.ok:
        out.print(f"[green]whole[/]  {escape(name)}: {report.lines} records, {report.signed} of them signed for")
    else:
        out.print(f"[bold red]NOT WHOLE[/]  {escape(name)}: {report.lines} records")
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
