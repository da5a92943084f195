"""`kbs policy playground`: a page on this machine to try policies on claims."""

from __future__ import annotations

import ipaddress
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from kbs.admin.policy_scenario import read_scenario
from kbs.cli.connection import Place
from kbs.cli.output import click_echo, printable
from kbs.cli.policy_files import compiler
from kbs.cli.policy_where import Where, anywhere
from kbs.client.errors import ClientError
from kbs.clock import system_clock
from kbs.policy.engine import PolicyKind
from kbs.web.playground.app import create_playground
from kbs.web.playground.form import Form
from kbs.web.playground.run import Runner
from kbs.web.playground.sources import Sources, SourceUnavailable

_SECRET: Final = 24  # octets
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class PlaceSource:
    """`BrokerSource` over the admin API. The token stays in this process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.name = place.url

    def policies(self) -> Sequence[tuple[PolicyKind, str]]:
        """Kind and id of the active ones."""
        try:
            with self._place.admin() as admin:
                return [(PolicyKind(each.kind), each.policy_id) for each in admin.policies()]
        except ClientError as err:
            raise SourceUnavailable(f"the broker's policies: {err}") from err

    def text(self, kind: PolicyKind, policy_id: str) -> str:
        """An active text."""
        try:
            with self._place.admin() as admin:
                return admin.policy(kind.value, policy_id).text
        except ClientError as err:
            raise SourceUnavailable(f"the policy {policy_id}: {err}") from err

    def values(self) -> Mapping[str, Any]:
        """The values that are valid now."""
        try:
            with self._place.admin() as admin:
                return {each.name: each.value for each in admin.reference_values() if each.valid}
        except ClientError as err:
            raise SourceUnavailable(f"the broker's reference values: {err}") from err


class _Quiet(WSGIRequestHandler):
    """Without a line per request: it would have the secret part of the address in it."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


@click.command("playground")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="Loopback address; port 0 takes a free one.")
@click.option("--file", "scenario", type=_FILE, help="Begin with this document.")
@anywhere
def playground_command(listen: str, scenario: Path | None, kind: str | None, where: Where, as_json: bool) -> None:
    """Serve a page on this machine: policy left, claims right, result and trace below.

    Works offline. With --data or --url its lists have the policies and reference values of that broker, too.
    """
    del kind, as_json
    first = None if scenario is None else Form.of(read_scenario(scenario.read_bytes()))
    source = None if where.place is None else PlaceSource(where.place)
    server, address = playground_server(listen, where.opa, Sources(source), first)
    click_echo(f"{address}\nopen this address in a browser; Control-C ends the playground")
    sys.stdout.flush()  # whoever started it through a pipe wants to know now
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click_echo(printable("ended"))
    finally:
        server.server_close()


def playground_server(
    listen: str, opa: Path | None, sources: Sources, first: Form | None = None
) -> tuple[BaseWSGIServer, str]:
    """A server that listens already, and the address of its page.

    Raises:
        UsageError: not a loopback address. OSError: it is taken.
    """
    host, port = _loopback(listen)
    key, form_token = secrets.token_urlsafe(_SECRET), secrets.token_urlsafe(_SECRET)
    hosts: set[str] = set()
    runner = Runner(compiler(opa), system_clock)
    app = create_playground(runner, sources, key=key, form_token=form_token, hosts=hosts, first=first)
    server = make_server(host, port, app, threaded=True, request_handler=_Quiet)
    named = f"[{host}]" if ":" in host else host
    hosts |= {f"{each}:{server.server_port}" for each in (named, "localhost")}
    return server, f"http://{named}:{server.server_port}/{key}/"


def _loopback(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        ok = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        ok = False
    if not ok or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise click.UsageError(
            f"--listen {listen}: a loopback address with a port, such as 127.0.0.1:0; the page asks nobody who he is"
        )
    return ("127.0.0.1" if host == "localhost" else host), int(port)
