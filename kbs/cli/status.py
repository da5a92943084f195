"""`kbs status`: what a broker says about itself."""

from __future__ import annotations

import json

import click
from rich.markup import escape

from kbs.cli.connection import Place, broker_options
from kbs.cli.output import console, print_json, printable
from kbs.strict_json import Json


@click.command("status", short_help="What the broker says about itself.")
@broker_options()
def status_command(place: Place, as_json: bool) -> None:
    """Show version, TEEs, policy engine, reference values and insecure settings of a running broker."""
    with place.admin() as admin:
        found = admin.status()
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(f"[bold]{escape(place.url)}[/]")
    width = max((len(name) for name in found), default=0)
    for name, value in found.items():
        shown = escape(printable(_text(value)))
        out.print(f"  {escape(printable(name)):<{width}}  {_coloured(name, value, shown)}")


def _coloured(name: str, value: Json, shown: str) -> str:
    if name == "insecure" and value:
        return f"[bold yellow]{shown}[/]"
    if name == "ready":
        return f"[{'green' if value is True else 'bold red'}]{shown}[/]"
    return shown


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or "none"
    return json.dumps(value)
