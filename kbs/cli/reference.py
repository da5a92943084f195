"""`kbs reference`: reference values, which claims of guests are compared with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import BinaryIO

import click

from kbs import strict_json
from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import done, print_json, print_table, to_seconds
from kbs.cli.parameters import JsonValue, Moment
from kbs.client.errors import ClientMisconfigured, NotFound, Problem
from kbs.client.model import ReferenceValueInfo
from kbs.errors import KbsError
from kbs.strict_json import Json


def _list_hint(place: Place) -> str:
    return f"kbs reference list {place_words(place)}".rstrip()


@click.group("reference", short_help="Reference values: set, register, list, show, withdraw.")
def reference_group() -> None:
    """Reference values: what attested guests are compared with. Each replaces the one of the same name."""


@reference_group.command("set")
@click.argument("name")
@click.argument("value", type=JsonValue(), metavar="JSON")
@click.option("--expires", type=Moment(), help="Until when it counts. Default: twelve months.")
@broker_options()
def set_command(name: str, value: list[Json], expires: datetime | None, place: Place, as_json: bool) -> None:
    """Vouch for a value: kbs reference set launch_digest '["ab12…"]'

    Most policies ask whether a claim is in a list, so that one good value is a list of one.
    """
    with place.admin() as admin:
        admin.set_reference_values({name: value[0]}, expires=expires)
    if as_json:
        print_json({"name": name, "value": value[0]})
        return
    done("set", f"{name} = {json.dumps(value[0])}")


@reference_group.command("register")
@click.option("--file", "file", type=click.File("rb"), required=True, help="RVPS message as JSON; - for stdin.")
@broker_options()
def register_command(file: BinaryIO, place: Place, as_json: bool) -> None:
    """Send one RVPS message: {"version", "type", "payload", "expiration"?}."""
    with place.admin() as admin:
        admin.register_reference_values(_message(file.read()))
    if as_json:
        print_json({"registered": True})
        return
    done("registered", "the values of the message")


@reference_group.command("list")
@broker_options()
def list_command(place: Place, as_json: bool) -> None:
    """List all values with who vouches for them and until when, expired ones too."""
    with place.admin() as admin:
        found = admin.reference_values()
    _show(found, as_json=as_json)


@reference_group.command("show")
@click.argument("name")
@broker_options(hint=_list_hint)
def show_command(name: str, place: Place, as_json: bool) -> None:
    """Show what is stored under NAME."""
    with place.admin() as admin:
        found = [each for each in admin.reference_values(name) if each.name == name]
    if not found:
        raise NotFound(Problem(404, "RvpsError", f"no reference value {name}"))
    _show(found, as_json=as_json)


@reference_group.command("withdraw")
@click.argument("name")
@broker_options(hint=_list_hint)
def withdraw_command(name: str, place: Place, as_json: bool) -> None:
    """Take NAME away at once: guests that need it no longer match."""
    with place.admin() as admin:
        admin.withdraw_reference_value(name)
    if as_json:
        print_json({"name": name, "withdrawn": True})
        return
    done("withdrawn", name)


def _message(raw: bytes) -> dict[str, Json]:
    try:
        message = strict_json.decode(raw)
    except KbsError as err:
        raise ClientMisconfigured(f"the message does not decode: {err}") from None
    if not isinstance(message, dict):
        raise ClientMisconfigured("the message is not a JSON object")
    return message


def _show(found: list[ReferenceValueInfo] | tuple[ReferenceValueInfo, ...], *, as_json: bool) -> None:
    if as_json:
        print_json([_document(each) for each in found])
        return
    print_table(("name", "value", "by", "until", ""), (_row(each) for each in found))


def _document(value: ReferenceValueInfo) -> dict[str, Json]:
    return {
        "name": value.name,
        "value": value.value,
        "issuer": value.issuer,
        "statement": value.statement,
        "valid_from": value.valid_from.isoformat(),
        "valid_until": value.valid_until.isoformat(),
        "valid": value.valid,
    }


def _row(value: ReferenceValueInfo) -> tuple[str, ...]:
    until = to_seconds(value.valid_until.astimezone(UTC).isoformat())
    return (value.name, json.dumps(value.value), value.issuer, until, "" if value.valid else "not valid now")
