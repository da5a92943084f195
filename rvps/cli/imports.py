"""`rvps import`: what a store of the reference implementation holds, as a value set or as one `sample` message."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Final

import click
from rich.table import Table

from rvps import imported
from rvps.cli.compute.artifacts import told
from rvps.cli.compute.output import Output, emit, output_options
from rvps.cli.connection import shown
from rvps.clock import system_clock
from rvps.messages import VERSION, write_time
from rvps.strict_json import encode
from rvps.value_set import ValueSet

_NEXT: Final = "give a LocalJson file, a LocalFs folder `reference_value`, or the operator's reference-values.json"


@click.command("import")
@click.argument("store", type=click.Path(exists=True, path_type=Path))
@click.option("--expired", is_flag=True, help="Take values that have expired too.")
@click.option("--message", is_flag=True, help="Print a `sample` message for `rvps register` and nothing else.")
@output_options("imported")
def import_command(store: Path, expired: bool, message: bool, series: str, as_json: bool, out: Path | None) -> None:
    """Read a store of the reference implementation: what is taken, what is not, and why."""
    if message and (as_json or out is not None):
        raise click.UsageError("--message goes to standard output alone: without --json and --out")
    with told(_NEXT):
        records = imported.read(store, system_clock(), take_expired=expired)
    found = imported.values(records)
    left_out = [one for one in records if one.left_out is not None]
    notes = [f"{one.name} is left out: {one.left_out}" for one in left_out]
    if message:
        payload = base64.b64encode(encode(found)).decode()
        click.echo(json.dumps({"version": VERSION, "type": "sample", "payload": payload}))
        for note in notes:
            click.echo(f"Note: {shown(note)}", err=True)
        return
    details = Table("name", "expiration", "taken", box=None)
    for one in records:
        until = "" if one.expiration is None else write_time(one.expiration)
        details.add_row(shown(one.name), until, "yes" if one.left_out is None else f"no: {one.left_out}")
    emit(lambda: ValueSet(series, found), Output(as_json, out), notes if as_json else (), details)
