"""`rvps register | query | list | withdraw`: reference values at a broker or a provider of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from rvps.cli import grpc_client, sending
from rvps.cli.connection import NEXT, Broker, Failure, connection, decoded, open_broker, shown

_MAX_MESSAGE: Final = 12 << 20  # bytes; as much as the services take
_PATH_NAME: Final = re.compile(
    r"(?!\.{1,2}(/|$))[\w.~!$&'()*+,=:@-]+(/(?!\.{1,2}(/|$))[\w.~!$&'()*+,=:@-]+)*", re.ASCII
)


_addr = click.option(
    "-a", "--addr", metavar="http[s]://HOST:PORT", help="A provider's gRPC address, in place of --url."
)


@click.command()
@click.argument("named", type=click.File("rb"), required=False, metavar="[MESSAGE]")
@click.option("-p", "--path", "--file", "file", type=click.File("rb"), help="The same as MESSAGE; - for stdin.")
@click.option("--dry-run", is_flag=True, help="Say what it would change; store nothing.")
@_addr
@connection
def register(
    named: BinaryIO | None,
    file: BinaryIO | None,
    dry_run: bool,
    addr: str | None,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Send one message: a signed statement, approval or revocation, or unsigned values that you vouch for.

    `rvps publish` and `rvps register`, the word of the field's tool, are one command. Unsigned values replace earlier
    ones of the same names.
    """
    source = named or file
    if source is None or (named is not None and file is not None):
        raise click.UsageError("name one message: rvps publish MESSAGE")
    if addr is not None and dry_run:
        raise click.UsageError("--dry-run asks over REST: give --url, not --addr")
    message = source.read(_MAX_MESSAGE + 1)
    if len(message) > _MAX_MESSAGE:
        raise Failure(f"the message has more than {_MAX_MESSAGE} bytes", "split it into several messages")
    if dry_run:
        found = sending.preview(open_broker(url, token_file, ca_file), message)
        if as_json:
            click.echo(json.dumps(found))
        else:
            sending.show_preview(found)
        return
    done: dict[str, Any] = {}
    if addr is not None:
        grpc_client.register(addr, message, token_file, ca_file)
    elif sending.is_signed(message):
        done = sending.submit(open_broker(url, token_file, ca_file), message)
    else:
        open_broker(url, token_file, ca_file).send("POST", "reference-value", message)
    if as_json:
        click.echo(json.dumps({"registered": True, **done}))
        return
    click.echo("Register provenance succeeded.")
    if done:
        sending.show_status(done["status"])


@click.command()
@click.argument("name", required=False)
@click.option("-r", "--reference-value-id", "wanted", metavar="NAME", help="The same as NAME.")
@_addr
@connection
def query(
    name: str | None,
    wanted: str | None,
    addr: str | None,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Print the value that is valid now under NAME, as JSON.

    With --addr a name without a value is no error, as with the field's tool.
    """
    if (name is None) == (wanted is None):
        raise Failure("one name is needed", "give NAME, or --reference-value-id NAME")
    name = name or wanted or ""
    if addr is not None:
        _query_grpc(addr, name, ca_file, as_json)
        return
    broker = open_broker(url, token_file, ca_file)
    if _PATH_NAME.fullmatch(name):
        value = decoded(broker.send("GET", f"reference-value/{name}"))
    else:
        found = [line for line in listed(broker, name) if line["name"] == name and line["valid"]]
        if not found:
            raise Failure(f"no reference value {name}", NEXT[404])
        value = found[0]["value"]
    if not as_json:
        click.echo("Get reference values succeeded:")
    click.echo(json.dumps(value))


def _query_grpc(addr: str, name: str, ca_file: Path | None, as_json: bool) -> None:
    text = grpc_client.query(addr, name, ca_file)
    if as_json:
        click.echo(text or "null")
    elif text is None:
        click.echo("No reference value found.")
    else:
        click.echo("Get reference values succeeded:")
        click.echo(json.dumps(json.loads(text)))  # escapes what would steer a terminal


@click.command(name="list")
@connection
def list_values(url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """List all stored values with issuer and validity, expired ones too."""
    lines = listed(open_broker(url, token_file, ca_file))
    if as_json:
        click.echo(json.dumps(lines))
        return
    table = Table("name", "value", "issuer", "valid until", "", box=None)
    for line in lines:
        state = "" if line["valid"] else "not valid now"
        cells = (line["name"], json.dumps(line["value"]), line["issuer"], line["valid_until"], state)
        table.add_row(*(shown(str(cell)) for cell in cells))
    Console(markup=False, highlight=False).print(table)


@click.command()
@click.argument("name")
@connection
def withdraw(name: str, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Take NAME away at once: machines that need it no longer match."""
    target = f"/{name}" if _PATH_NAME.fullmatch(name) else f"?name={quote(name, safe='')}"
    open_broker(url, token_file, ca_file).send("DELETE", f"admin/reference-values{target}")
    click.echo('{"withdrawn": true}' if as_json else "Withdrawn.")


def listed(broker: Broker, name: str | None = None) -> list[dict[str, Any]]:
    """Lines of `rvps list`, of one name or of all.

    Raises:
        Failure: nobody answers, or not with a list of values.
    """
    query_text = "" if name is None else f"?name={quote(name, safe='')}"
    lines = decoded(broker.send("GET", f"admin/reference-values{query_text}"))
    needed = {"name", "value", "issuer", "valid_until", "valid"}
    if not isinstance(lines, list) or not all(isinstance(line, dict) and needed <= line.keys() for line in lines):
        raise Failure("the answer is no list of reference values", "check that --url names a broker of this make")
    return lines
