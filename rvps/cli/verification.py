"""`rvps verify`: who signed a message, may they, and what would it state? Works offline, changes nothing."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Column, Table

from rvps.cli.connection import Failure, shown
from rvps.cli.signing import payload_of, show_facts
from rvps.clock import system_clock
from rvps.errors import SettingsUnacceptable, SignatureRefused, StatementUnacceptable
from rvps.intake import intake_for, signed_form
from rvps.intake.model import Approval, Content, Revocation, Verified
from rvps.messages import write_time
from rvps.publishers import model as publishers
from rvps.statements import admission
from rvps.statements.view import View

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_SHOWN: Final = 40  # values in a table


@click.command()
@click.argument("message", type=_FILE)
@click.option("--publishers", "file", type=_FILE, required=True, help="publishers.toml of the provider.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def verify(message: Path, file: Path, as_json: bool) -> None:
    """Check a signed message as a provider would that has seen no other: signature, publisher, dates, names.

    Exit status 1 if it would be refused. What only the provider knows (serials taken, the statement that an approval
    names) is not looked at.
    """
    try:
        known = publishers.load(file)
    except SettingsUnacceptable as err:
        raise Failure(str(err), "mend the file of publishers") from err
    document, payload = payload_of(message)
    now = system_clock()
    try:
        kind = str(document.get("type"))
        # upstream's types may be signed too
        intake = signed_form(kind, payload) or intake_for(kind)
        verified = intake.verify(payload, known, now)
        content = intake.extract(verified, now)
        if isinstance(content, Content):
            admission.event_of(View(), verified.publisher, admission.source_of(verified, payload), content, now)
    except SignatureRefused as err:
        raise Failure(f"refused: {err}", "ask who signed it, or add the publisher's key to the file") from err
    except StatementUnacceptable as err:
        raise Failure(f"signed, but refused: {err}", "ask the publisher for a corrected statement") from err
    told = _told(verified, content)
    if as_json:
        click.echo(json.dumps(told))
    else:
        _show(told, content)


def _told(verified: Verified, content: Content | Approval | Revocation) -> dict[str, Any]:
    about: dict[str, Any] = {
        "publisher": verified.publisher.name,
        "signer": verified.signer,
        "type": verified.kind,
        "statement": verified.digest,
        "signed_at": _time(verified.signed_at),
    }
    match content:
        case Approval():
            return {**about, "does": "approval", "approves": content.statement, "serial": content.serial}
        case Revocation():
            return {**about, "does": "revocation", "revokes": content.statement, "reason": content.reason}
        case Content():
            return {
                **about,
                "does": "statement",
                "series": content.series,
                "serial": content.serial,
                "tee": content.tee,
                "together": content.together,
                "valid_from": _time(content.valid_from),
                "valid_until": _time(content.valid_until),
                "approvals": verified.publisher.approvals,
                "artifacts": [{"name": item.name, "digest": dict(item.digest)} for item in content.artifacts],
                "values": dict(content.values),
                "known_bad": {name: list(bad) for name, bad in content.known_bad.items()},
            }


def _show(told: dict[str, Any], content: Content | Approval | Revocation) -> None:
    console = Console(markup=False, highlight=False)
    facts = [(name, value) for name, value in told.items() if value is not None and not isinstance(value, dict | list)]
    show_facts([(name.replace("_", " "), str(value)) for name, value in facts])
    if isinstance(content, Content):
        values = Table(Column("name", overflow="fold"), Column("value", overflow="fold"), box=None)
        rows = [(name, value, "") for name, value in content.values.items()]
        rows += [(name, bad, " (known bad)") for name, bads in content.known_bad.items() for bad in bads]
        for name, value, remark in rows[:_SHOWN]:
            values.add_row(shown(name), shown(json.dumps(value)) + remark)
        console.print(values)
        if len(rows) > _SHOWN:
            console.print(f"… and {len(rows) - _SHOWN} more; all of them with --json")
    console.print("The signature verifies and its publisher may send this.")


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else write_time(moment)
