"""`kbs initdata register|list|show|remove|explain`: the documents that a broker knows, and whose they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import click
from rich.markup import escape

from kbs.cli.connection import Place, broker_options, place_words
from kbs.cli.output import click_echo, console, done, print_json, print_table, printable, to_seconds
from kbs.client.init_data import InitDataClient
from kbs.initdata import document


def _list_hint(place: Place) -> str:
    return f"kbs initdata list {place_words(place)}".rstrip()


@click.command("register")
@click.argument("file", type=click.File("rb"))
@click.option("--name", required=True, help="Of the entry: letters, digits, dots, - and _.")
@click.option("--owner", required=True, help="Who answers for it, such as a team or an address.")
@click.option(
    "--expected", type=click.IntRange(min=0), help="Only if this version is the current one; 0: if there is none."
)
@broker_options(hint=_list_hint)
def register_command(file: BinaryIO, name: str, owner: str, expected: int | None, place: Place, as_json: bool) -> None:
    """Keep FILE's document in the broker, and approve guests that were started with it.

    Its digest, in the form of every TEE, is added to the reference value init_data_digests.
    """
    found = document.read(file.read(document.MAX_FILE + 1))
    with place.admin() as admin:
        version = InitDataClient(admin).register(name, owner, found.raw, expected=expected)
    if as_json:
        print_json({"name": name, "owner": owner, "version": version, "digest": found.digest.hex()})
        return
    number = "" if version is None else f", version {version}"
    done("registered", f"{name}{number}, {found.algorithm} {found.digest.hex()}, of {owner}")


@click.command("list")
@broker_options()
def list_command(place: Place, as_json: bool) -> None:
    """List the documents that the broker knows, with their owners."""
    with place.admin() as admin:
        found = InitDataClient(admin).all()
    if as_json:
        print_json(found)
        return
    members = ("name", "owner", "version", "algorithm", "digest")
    rows = [
        (*(each.get(member) for member in members), to_seconds(each.get("time")), each.get("author")) for each in found
    ]
    print_table((*members, "registered", "by"), rows)


@click.command("show")
@click.argument("name")
@click.option("--text", is_flag=True, help="Print the exact text of the document and nothing else.")
@broker_options(hint=_list_hint)
def show_command(name: str, text: bool, place: Place, as_json: bool) -> None:
    """Show one entry: owner, digest, and the field of every TEE."""
    with place.admin() as admin:
        found = InitDataClient(admin).get(name)
    if as_json:
        print_json(found)
        return
    if text:
        sys.stdout.buffer.write(str(found["text"]).encode())
        return
    for member in ("name", "owner", "version", "author", "time", "algorithm", "digest", "size"):
        click_echo(f"{member:<10} {printable(str(found.get(member)))}")
    fields = found.get("fields")
    if isinstance(fields, Mapping):
        print_table(("TEE", "field"), [(tee, value or "takes sha256 only") for tee, value in fields.items()])


@click.command("remove")
@click.argument("name")
@click.option("--expected", type=click.IntRange(min=1), help="Only if this version is the current one.")
@broker_options(hint=_list_hint)
def remove_command(name: str, expected: int | None, place: Place, as_json: bool) -> None:
    """Forget a document: guests that were started with it no longer match."""
    with place.admin() as admin:
        InitDataClient(admin).remove(name, expected=expected)
    if as_json:
        print_json({"name": name, "removed": True})
        return
    done("removed", name)


@click.command("explain")
@click.argument("asked", metavar="HEX|BASE64|DECISION")
@broker_options(hint=_list_hint)
def explain_command(asked: str, place: Place, as_json: bool) -> None:
    """Say which known document a guest was started with, by its claim init_data or by a decision about it."""
    with place.admin() as admin:
        found = InitDataClient(admin).origin(asked)
    if as_json:
        print_json(found)
        return
    out = console()
    value = found.get("init_data")
    out.print(f"init data  {escape(printable(str(value or 'none measured')))}")
    if value:
        out.print("approved   " + ("[green]yes[/]" if found.get("approved") else "[red]no[/]"))
    for each in found.get("matches", []):
        _show_match(each)
    for each in found.get("nearest", []):
        words = f"{_named(each)}: the same {_words(each, 'same')}; other {_words(each, 'differs')}"
        out.print(f"[yellow]near[/]       {words}")
    if not found.get("matches") and not found.get("nearest"):
        out.print("[yellow]unknown[/]    no registered document leads there")


def _show_match(found: Mapping[str, Any]) -> None:
    how = found.get("how")
    if how == "exact":
        where = escape(printable(", ".join(found.get("tees", []))))
        console().print(f"[green]from[/]       {_named(found)} [dim]({where})[/]")
    else:
        console().print(f"[yellow]nearly[/]     {_named(found)}: {escape(printable(str(how)))}")


def _named(found: Mapping[str, Any]) -> str:
    return escape(printable(f"{found.get('name')} of {found.get('owner')}"))


def _words(found: Mapping[str, Any], member: str) -> str:
    return escape(printable(", ".join(found.get(member, [])))) or "nothing"
