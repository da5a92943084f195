"""How `rvps` reaches a running broker, and how it says that something went wrong."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
import httpx

_TIMEOUT: Final = 60.0  # seconds
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")  # RFC 6750 b64token
NEXT: Final = {
    401: "make a token with `kbs admin token` and name its file with --token-file",
    403: "use a token whose role may change or read reference values: `kbs admin token --help`",
    404: "see what there is with `rvps list`",
    422: 'mend the message; its form: {"version": "0.1.0", "type": "sample", "payload": <base64 of JSON>}',
    503: "wait and try again; `/healthz` of the broker says whether it is well",
}


class Failure(click.ClickException):
    """One line of what went wrong and one of what to do next; exit status 1."""

    def __init__(self, text: str, following: str) -> None:
        super().__init__(f"{shown(text)}\nNext: {following}")


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker's admin API. Holds the token, and shows it to nobody."""

    http: httpx.Client
    headers: dict[str, str] = field(repr=False)

    def send(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        following: Mapping[int, str] = MappingProxyType({}),
    ) -> httpx.Response:
        """One request below `/kbs/v0/`.

        Args:
            following: what to do next, by status, where it is not what `NEXT` says.

        Raises:
            Failure: no answer, or any status but 200.
        """
        try:
            response = self.http.request(method, f"/kbs/v0/{target}", content=content, headers=self.headers)
        except httpx.InvalidURL as err:
            raise Failure(f"it does not fit into a request ({err})", "give a shorter name or value") from err
        except httpx.HTTPError as err:
            address = str(self.http.base_url)
            raise Failure(
                f"no answer from {address} ({err})", "check --url and --ca-file, and that the broker runs"
            ) from err
        if response.status_code != 200:
            status = response.status_code
            advice = following.get(status) or NEXT.get(status, "see the broker's log for this request")
            raise Failure(f"{status}: {_detail(response)}", advice)
        return response


def connection(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every command has."""
    options = (
        click.option(
            "--url",
            envvar="RVPS_URL",
            default="https://127.0.0.1:8080",
            show_default=True,
            show_envvar=True,
            help="The broker's admin address, or that of `rvps serve`.",
        ),
        click.option(
            "--token-file",
            envvar="RVPS_TOKEN_FILE",
            show_envvar=True,
            type=click.Path(path_type=Path),
            help="File with an admin token.",
        ),
        click.option(
            "--ca-file",
            envvar="RVPS_CA_FILE",
            show_envvar=True,
            type=click.Path(path_type=Path),
            help="PEM of the only roots to trust.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else."),
    )
    for option in reversed(options):
        function = option(function)
    return function


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
        if address.scheme == "http" and not is_loopback(address.host):
            raise Failure("a token is not sent over plain HTTP to another machine", "give an https:// address")
        headers["Authorization"] = f"Bearer {read_token(token_file)}"
    http = http_client(url, ca_file)
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(http.close)
    return Broker(http, headers)


def read_token(token_file: Path) -> str:
    """The token in a file.

    Raises:
        Failure: there is none that could travel in a header; its text is not shown.
    """
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


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decoded(response: httpx.Response) -> Any:
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


def shown(text: str) -> str:
    """A peer's text without characters that steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:1000])
