"""`rvps diff`: what differs between two sets of values, wherever they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from rvps import messages, value_set
from rvps.cli.connection import Broker, Failure, connection, decoded, open_broker, shown
from rvps.cli.sending import FOLLOWING
from rvps.errors import StatementUnacceptable
from rvps.intake import dsse, in_toto
from rvps.json_values import same_as
from rvps.messages import MAX_MESSAGE
from rvps.strict_json import NotStrictJson, decode

NOW: Final = "now"
_ANY_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""An expiration that has passed is no difference."""
_NEXT: Final = "name a value set, a message, what `rvps list --json` printed, a statement's digest, or `now`"


@dataclass(frozen=True, slots=True)
class Values:
    """One side. whole: names that it does not state have no value; else they are not its business."""

    title: str
    values: Mapping[str, Any] = field(repr=False)
    whole: bool = True


@click.command()
@click.argument("one", metavar="[A]")
@click.argument("other", metavar="B", required=False)
@connection
def diff(one: str, other: str | None, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Show what differs from A to B; with B alone, from what is in force to B.

    Each is a value set, a message (its signature is not checked here), what `rvps list --json` printed, the digest or
    id of a statement at the provider, or `now`: what is in force, of the names that the other side states. Exit
    status 0 if they are the same, 1 if not.
    """
    first, second = (NOW, one) if other is None else (one, other)
    ask: Callable[[], Broker] = cache(lambda: open_broker(url, token_file, ca_file))
    before, after = _side(first, ask), _side(second, ask)
    changes = list(_changes(before, after))
    if as_json:
        click.echo(json.dumps({"from": before.title, "to": after.title, "changes": changes}))
    else:
        _show(before, after, changes)
    if changes:
        raise SystemExit(1)


def _changes(before: Values, after: Values) -> Any:
    for name in sorted(before.values.keys() | after.values.keys()):
        is_asked = (before.whole or name in after.values) and (after.whole or name in before.values)
        old, new = before.values.get(name), after.values.get(name)
        if is_asked and same_as(old) != same_as(new):
            gone, came = _members(old, new), _members(new, old)
            yield {"name": name, "before": old, "after": new, "removed": gone, "added": came}


def _members(value: Any, other: Any) -> list[Any]:
    """What `value` has and `other` has not: members of lists, or the whole."""
    if value is None:
        return []
    if isinstance(value, list) and (other is None or isinstance(other, list)):
        known = {same_as(each) for each in other or ()}
        return [each for each in value if same_as(each) not in known]
    return [value]


def _show(before: Values, after: Values, changes: list[dict[str, Any]]) -> None:
    click.echo(f"--- {shown(before.title)}\n+++ {shown(after.title)}")
    for change in changes:
        for sign, colour, values in (("-", "red", change["removed"]), ("+", "green", change["added"])):
            for value in values:
                click.echo(click.style(f"{sign} {shown(change['name'])} = {shown(json.dumps(value))}", fg=colour))
        if not change["removed"] and not change["added"]:
            click.echo(f"~ {shown(change['name'])}: the same members in another order")
    names = before.values.keys() | after.values.keys()
    if not changes:
        click.echo(f"No difference in {len(names)} names.")


def _side(text: str, ask: Callable[[], Broker]) -> Values:
    if text == NOW:
        lines = decoded(ask().send("GET", "admin/reference-values"))
        return Values("what is in force", {one["name"]: one["value"] for one in lines if one["valid"]}, whole=False)
    path = Path(text)
    if path.is_file():
        try:
            return _of_file(path)
        except StatementUnacceptable as err:
            raise Failure(f"{path}: {err}", _NEXT) from err
    if len(text) < 8 or set(text) - set("0123456789abcdef"):
        raise Failure(f"{text}: no such file, and no digest of a statement", _NEXT)
    target = f"admin/reference-values/statements/{quote(text, safe='')}/values"
    found = decoded(ask().send("GET", target, None, FOLLOWING))
    title = f"statement {text[:16]}" if found["series"] is None else f"statement {text[:16]} ({found['series']})"
    return Values(title, found["values"])


def _of_file(path: Path) -> Values:
    limit = 3 * MAX_MESSAGE
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        document = decode(raw, max_bytes=limit)
    except OSError as err:
        raise Failure(f"{path}: {err.strerror}", "name a file that you may read") from err
    except NotStrictJson as err:
        raise Failure(f"{path}: {err}", _NEXT) from err
    if isinstance(document, list):
        return Values(path.name, {one["name"]: one["value"] for one in document if _is_line(one) and one["valid"]})
    if isinstance(document, dict) and "payload" in document and "type" in document:
        return Values(path.name, _of_message(document))
    return Values(path.name, value_set.read(raw).values)


def _is_line(one: Any) -> bool:
    if not isinstance(one, dict) or not {"name", "value", "valid"} <= one.keys():
        raise StatementUnacceptable("not what `rvps list --json` prints")
    return True


def _of_message(document: dict[str, Any]) -> Mapping[str, Any]:
    """Values of a message; nobody's signature is checked.

    Raises:
        StatementUnacceptable: it states none that can be read without its publisher.
    """
    if document["type"] != dsse.KIND:
        if document["type"] in ("sample", "corim", "swid"):
            return messages.read(document, _ANY_TIME).values
        raise StatementUnacceptable("only messages of type dsse, sample, corim and swid are compared")
    envelope, _ = dsse.unwrap(messages.read_payload(document))
    statement = in_toto.read_statement(dsse.read_envelope(envelope).payload)
    values = statement.predicate.get("values")
    if statement.predicate_type != in_toto.VALUES or not isinstance(values, dict):
        raise StatementUnacceptable("the message states no values")
    value_set.check_values(values, {})
    return values
