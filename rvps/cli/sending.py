"""Sending signed messages, and what the provider answers about their statement."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

import click

from rvps.cli.connection import Broker, Failure, decoded, shown
from rvps.intake import INTAKES
from rvps.strict_json import NotStrictJson, decode

FOLLOWING: Final = {
    403: "use a token that may change reference values (`kbs admin token --help`), or the key of a publisher",
    404: "see what there is with `rvps statements`",
    413: "split the values over several series, and sign each",
    422: "see what it says and who signed it: rvps verify MESSAGE --publishers publishers.toml",
}
STATES: Final = {"draft": "yellow", "active": "green", "superseded": "bright_black", "expired": "red", "revoked": "red"}


def is_signed(message: bytes) -> bool:
    """Whether it is a message of a type that is always signed. What it is worth is the provider's business."""
    try:
        document = decode(message, max_bytes=len(message) + 1)
    except NotStrictJson:
        return False
    return isinstance(document, dict) and document.get("type") in INTAKES


def submit(broker: Broker, message: bytes) -> dict[str, Any]:
    """Send a signed message: what it did and the state it led to.

    Raises:
        Failure: it was refused, or nobody answers.
    """
    found = decoded(broker.send("POST", "admin/reference-values/submit", message, FOLLOWING))
    if not isinstance(found, dict) or not isinstance(found.get("status"), dict):
        raise Failure("the answer says nothing of a statement", "check that --url names a broker of this make")
    return found


def preview(broker: Broker, message: bytes) -> dict[str, Any]:
    """What a message would do.

    Raises:
        Failure: it would be refused, or nobody answers.
    """
    found: dict[str, Any] = decoded(broker.send("POST", "admin/reference-values/dry-run", message, FOLLOWING))
    return found


def statement(broker: Broker, wanted: str) -> dict[str, Any]:
    """One statement by id, digest, or the beginning of its digest.

    Raises:
        Failure: there is none, or nobody answers.
    """
    target = f"admin/reference-values/statements/{quote(wanted, safe='')}"
    found: dict[str, Any] = decoded(broker.send("GET", target, None, FOLLOWING))
    return found


def name_of(status: dict[str, Any]) -> str:
    """Series and serial, or who vouches for it."""
    if status.get("series") is None:
        return f"values of {status.get('issuer')}"
    return f"{status['series']} {status['serial']}"


def show_status(status: dict[str, Any]) -> None:
    """The state that a statement has now, and what comes next."""
    handle = status.get("digest") or status["id"]
    state = str(status["state"])
    click.echo(f"statement  {shown(str(handle))}")
    click.echo(f"series     {shown(name_of(status))}")
    click.echo(f"state      {click.style(state, fg=STATES.get(state))}: {shown(str(status['reason']))}")
    if state == "draft":
        approvers = ", ".join(map(str, status.get("approvers", ())))
        click.echo(f"Next: rvps approve {shown(str(handle))} --key FILE (by {shown(approvers)})")


def show_preview(found: dict[str, Any]) -> None:
    """Changes by name, then warnings."""
    colours = {"new": "green", "changed": "yellow", "removed": "red"}
    changes = [change for change in found["changes"] if change["kind"] != "unchanged"]
    click.echo(f"{found['does']}, statement would be {click.style(str(found['state']), fg=STATES.get(found['state']))}")
    for change in changes:
        word = click.style(f"{change['kind']:<8}", fg=colours.get(change["kind"]))
        click.echo(f"{word} {shown(change['name'])}  {shown(json.dumps(change['after']))}")
    same = len(found["changes"]) - len(changes)
    if same:
        click.echo(f"{same} names as they are")
    for warning in found["warnings"]:
        click.echo(f"Note: {shown(warning)}", err=True)
