"""`rvps statements | show | approve | revoke`: what becomes of statements at a broker or a provider of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.table import Table
from rich.text import Text

from rvps import signing
from rvps.cli.compute.tables import show as show_table
from rvps.cli.connection import Failure, connection, decoded, open_broker, shown
from rvps.cli.sending import FOLLOWING, STATES, name_of, show_status, statement, submit
from rvps.cli.signing import key_from, statement_digest
from rvps.errors import StatementUnacceptable

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIGITS = 64


def _password(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--password-file", type=_FILE, help="First line opens the key; without it you are asked.")(
        command
    )


@click.command()
@click.option("--state", type=click.Choice(sorted(STATES)), help="Only those in this state.")
@click.option("--series", help="Only those of this series.")
@connection
def statements(
    state: str | None, series: str | None, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool
) -> None:
    """List statements with their state, newest first."""
    target = "admin/reference-values/statements" + ("" if state is None else f"?state={state}")
    found = decoded(open_broker(url, token_file, ca_file).send("GET", target))
    listed = [status for status in found if series is None or status.get("series") == series]
    if as_json:
        click.echo(json.dumps(listed))
        return
    table = Table("statement", "series", "tee", "publisher", "state", "approvals", "names", "valid until", box=None)
    for status in listed:
        approvals = f"{status['approvals']} of {status['approvals_needed']}" if status["approvals_needed"] else ""
        table.add_row(
            shown((status["digest"] or status["id"])[:16]),
            shown(name_of(status)),
            shown(status["tee"] or ""),
            shown(status["publisher"] or ""),
            Text(status["state"], style=STATES.get(status["state"], "")),
            approvals,
            str(len(status["names"])),
            shown(status["valid_until"]),
        )
    show_table(table)


@click.command("show")
@click.argument("wanted", metavar="ID|DIGEST")
@connection
def show_command(wanted: str, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Show one statement: who signed it, of what, its values, and every step up to now."""
    broker = open_broker(url, token_file, ca_file)
    status = statement(broker, wanted)
    stated = decoded(
        broker.send("GET", f"admin/reference-values/statements/{quote(status['id'], safe='')}/values", None, FOLLOWING)
    )
    if as_json:
        click.echo(json.dumps({**status, "values": stated["values"], "known_bad": stated["known_bad"]}))
        return
    show_status(status)
    for name in ("issuer", "signer", "tee", "valid_from", "valid_until", "together"):
        if status[name] is not None:
            click.echo(f"{name.replace('_', ' '):<11}{shown(str(status[name]))}")
    for name, digests in status["artifacts"]:
        for algorithm, digits in digests.items():
            click.echo(f"{'artifact':<11}{shown(name)} {algorithm}:{shown(digits)}")
    show_steps(status)
    for name, value in stated["values"].items():
        click.echo(f"{'value':<11}{shown(name)} = {shown(json.dumps(value))}")
    for name, values in stated["known_bad"].items():
        click.echo(f"{'known bad':<11}{shown(name)} = {shown(json.dumps(values))}")


def show_steps(status: dict[str, Any]) -> None:
    """What happened to a statement, in the order in which it did."""
    for step in status["steps"]:
        reason = f": {step['reason']}" if step["reason"] else ""
        by = f" by {step['by']}" if step["by"] else ""
        click.echo(f"{'step':<11}{shown(step['at'])} {shown(step['what'])}{shown(by)}{shown(reason)}")


@click.command()
@click.argument("wanted", metavar="MESSAGE|DIGEST")
@click.option("--key", "key_file", type=_FILE, required=True, help="Private key of an approver.")
@_password
@click.option("--serial", type=click.IntRange(1), help="Consent to the statement only if it has this serial.")
@connection
def approve(
    wanted: str,
    key_file: Path,
    password_file: Path | None,
    serial: int | None,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Sign an approval of a statement and send it.

    The statement is named by the message that states it, or by its whole digest: what you consent to must not be for
    the provider to say. In two steps: `rvps sign-approval`, `rvps publish`.
    """
    digest = _whole(wanted)
    message = signing.message(
        signing.sign(signing.approval_statement(digest, serial), key_from(key_file, password_file))
    )
    done = submit(open_broker(url, token_file, ca_file), message)
    _told(done, "Approved.", as_json=as_json)


@click.command()
@click.argument("wanted", metavar="MESSAGE|DIGEST|ID")
@click.option("--reason", required=True, help="One line for those who ask why.")
@click.option("--key", "key_file", type=_FILE, help="Private key of its publisher or of an approver.")
@_password
@connection
def revoke(
    wanted: str,
    reason: str,
    key_file: Path | None,
    password_file: Path | None,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Make a statement void at once and for ever.

    With --key a signed revocation is sent, which needs no rights of an administrator; without it the administrator
    whose token it is revokes, by ID too. In two steps: `rvps sign-revocation`, `rvps publish`.
    """
    if key_file is None and password_file is not None:
        raise click.UsageError("--password-file goes with --key")
    broker = open_broker(url, token_file, ca_file)
    if key_file is None:
        handle = wanted if not Path(wanted).is_file() else statement_digest(wanted)
        target = f"admin/reference-values/statements/{quote(handle, safe='')}/revoke"
        body = json.dumps({"reason": reason}).encode()
        following = {**FOLLOWING, 422: "give --reason one short line; see its state with `rvps statements`"}
        done = {"does": "revocation", "status": decoded(broker.send("POST", target, body, following))}
    else:
        try:
            content = signing.revocation_statement(_whole(wanted), reason)
        except StatementUnacceptable as err:
            raise Failure(str(err), "give --reason one short line") from err
        done = submit(broker, signing.message(signing.sign(content, key_from(key_file, password_file))))
    _told(done, "Revoked.", as_json=as_json)


def _whole(wanted: str) -> str:
    """The digest of a statement, from its message or as it is given.

    Raises:
        Failure: neither a message nor a whole digest.
    """
    if Path(wanted).is_file() or len(wanted) == _DIGITS:
        return statement_digest(wanted)
    raise Failure(
        f"{wanted}: neither a file nor a digest of {_DIGITS} hex digits",
        "give the message that you looked at with `rvps verify`, or its whole digest",
    )


def _told(done: dict[str, Any], word: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(done))
        return
    click.echo(word)
    show_status(done["status"])
