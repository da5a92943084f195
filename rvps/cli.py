"""`rvps`: register, look up, list and withdraw reference values at a running broker, through its admin API."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import click
import httpx
from rich.console import Console
from rich.table import Table

_TIMEOUT: Final = 60.0  # seconds
_MAX_MESSAGE: Final = 2 << 20  # bytes
_PATH_NAME: Final = re.compile(
    r"(?!\.{1,2}(/|$))[\w.~!$&'()*+,=:@-]+(/(?!\.{1,2}(/|$))[\w.~!$&'()*+,=:@-]+)*", re.ASCII
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")  # RFC 6750 b64token
_NEXT: Final = {
    401: "make a token with `kbs admin token` and name its file with --token-file",
    403: "use a token whose role may change or read reference values: `kbs admin token --help`",
    404: "see what there is with `rvps list`",
    422: 'mend the message; its form: {"version": "0.1.0", "type": "sample", "payload": <base64 of JSON>}',
    503: "wait and try again; `/healthz` of the broker says whether it is well",
}


class Failure(click.ClickException):
    """One line of what went wrong and one of what to do next; exit status 1."""

    def __init__(self, text: str, following: str) -> None:
        super().__init__(f"{_shown(text)}\nNext: {following}")


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker's admin API. Holds the token, and shows it to nobody."""

    http: httpx.Client
    headers: dict[str, str] = field(repr=False)

    def send(self, method: str, target: str, content: bytes | None = None) -> httpx.Response:
        """One request below `/kbs/v0/`.

        Raises:
            Failure: no answer, or any status but 200.
        """
        try:
            response = self.http.request(method, f"/kbs/v0/{target}", content=content, headers=self.headers)
        except httpx.HTTPError as err:
            address = str(self.http.base_url)
            raise Failure(
                f"no answer from {address} ({err})", "check --url and --ca-file, and that the broker runs"
            ) from err
        if response.status_code != 200:
            following = _NEXT.get(response.status_code, "see the broker's log for this request")
            raise Failure(f"{response.status_code}: {_detail(response)}", following)
        return response


def _connection(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every command has."""
    options = (
        click.option("--url", default="https://127.0.0.1:8080", show_default=True, help="The broker's admin address."),
        click.option("--token-file", type=click.Path(path_type=Path), help="File with an admin token."),
        click.option("--ca-file", type=click.Path(path_type=Path), help="PEM of the only roots to trust."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Reference values of a running broker: what attested machines are compared with."""


@main.command()
@click.option(
    "-p", "--path", "--file", "file", type=click.File("rb"), required=True, help="Message as JSON; - for stdin."
)
@_connection
def register(file: BinaryIO, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Send one RVPS message. Its values replace earlier ones of the same names."""
    message = file.read(_MAX_MESSAGE + 1)
    if len(message) > _MAX_MESSAGE:
        raise Failure(f"the message has more than {_MAX_MESSAGE} bytes", "split it into several messages")
    open_broker(url, token_file, ca_file).send("POST", "reference-value", message)
    click.echo('{"registered": true}' if as_json else "Register provenance succeeded.")


@main.command()
@click.argument("name")
@_connection
def query(name: str, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Print the value that is valid now under NAME, as JSON."""
    broker = open_broker(url, token_file, ca_file)
    if _PATH_NAME.fullmatch(name):
        value = _decoded(broker.send("GET", f"reference-value/{name}"))
    else:
        found = [line for line in _listed(broker, name) if line["name"] == name and line["valid"]]
        if not found:
            raise Failure(f"no reference value {name}", _NEXT[404])
        value = found[0]["value"]
    if not as_json:
        click.echo("Get reference values succeeded:")
    click.echo(json.dumps(value))


@main.command(name="list")
@_connection
def list_values(url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """List all stored values with issuer and validity, expired ones too."""
    lines = _listed(open_broker(url, token_file, ca_file))
    if as_json:
        click.echo(json.dumps(lines))
        return
    table = Table("name", "value", "issuer", "valid until", "", box=None)
    for line in lines:
        state = "" if line["valid"] else "not valid now"
        cells = (line["name"], json.dumps(line["value"]), line["issuer"], line["valid_until"], state)
        table.add_row(*(_shown(str(cell)) for cell in cells))
    Console(markup=False, highlight=False).print(table)


@main.command()
@click.argument("name")
@_connection
def withdraw(name: str, url: str, token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Take NAME away at once: machines that need it no longer match."""
    target = f"/{name}" if _PATH_NAME.fullmatch(name) else f"?name={quote(name, safe='')}"
    open_broker(url, token_file, ca_file).send("DELETE", f"admin/reference-values{target}")
    click.echo('{"withdrawn": true}' if as_json else "Withdrawn.")


def open_broker(url: str, token_file: Path | None, ca_file: Path | None) -> Broker:
    """Check the options and connect.

    Raises:
        Failure: a file that does not read, an address that is none, a token that would travel in the clear.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as err:
        raise Failure(f"--url: {err}", "give an address like https://broker:8080") from err
    if address.scheme not in ("https", "http") or not address.host:
        raise Failure("--url is no address", "give an address like https://broker:8080")
    headers = {}
    if token_file is not None:
        if address.scheme == "http" and not _is_loopback(address.host):
            raise Failure("a token is not sent over plain HTTP to another machine", "give an https:// address")
        headers["Authorization"] = f"Bearer {_token(token_file)}"
    return Broker(http_client(url, ca_file), headers)


def _token(token_file: Path) -> str:
    try:
        token = token_file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not _TOKEN.fullmatch(token):  # its text goes nowhere: not into an error, not into a header that does not parse
        raise Failure(f"{token_file}: no readable token file", "make one with `kbs admin token`")
    return token


def http_client(url: str, ca_file: Path | None) -> httpx.Client:
    """A client that trusts `ca_file` alone where it is given, follows no redirect and reads no environment."""
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as err:
        following = "name the `tls/ca.pem` of the broker's data directory"
        raise Failure(f"{ca_file}: not a readable file of PEM certificates", following) from err
    return httpx.Client(base_url=url, verify=context, timeout=_TIMEOUT, trust_env=False)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(broker: Broker, name: str | None = None) -> list[dict[str, Any]]:
    query_text = "" if name is None else f"?name={quote(name, safe='')}"
    lines = _decoded(broker.send("GET", f"admin/reference-values{query_text}"))
    needed = {"name", "value", "issuer", "valid_until", "valid"}
    if not isinstance(lines, list) or not all(isinstance(line, dict) and needed <= line.keys() for line in lines):
        raise Failure("the answer is no list of reference values", "check that --url names a broker of this make")
    return lines


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise Failure("the answer is not JSON", "check that --url names a broker") from None


def _detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        return "the answer is no problem of this protocol"
    return str(problem.get("detail")) if isinstance(problem, dict) else "the answer is no problem of this protocol"


def _shown(text: str) -> str:
    """A peer's text without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:1000])
