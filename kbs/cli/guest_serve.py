"""`kbs guest serve`: the REST server of a guest, on this machine, for developing applications without hardware."""

from __future__ import annotations

import ipaddress
import json
import sys

import click
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from kbs.cli.output import click_echo
from kbs.client.guest_rest import SoftwareGuest, create_app


class _Quiet(WSGIRequestHandler):
    """Without a line per request: runtime data may be in the address."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


def serve(guest: SoftwareGuest, listen: str, features: str, *, as_json: bool = False) -> None:
    """Answer until Control-C. The first line says where.

    Raises:
        UsageError: not a loopback address. OSError: it is taken.
    """
    server, address = guest_server(guest, listen, features)
    if as_json:
        click_echo(json.dumps({"address": address, "tee": guest.tee, "features": features}))
    else:
        click_echo(f"{address}  {guest.tee}, {features}; software: it proves nothing. Control-C ends it")
    sys.stdout.flush()  # whoever started it through a pipe wants to know now
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.stderr.write("ended\n")
    finally:
        server.server_close()


def guest_server(guest: SoftwareGuest, listen: str, features: str) -> tuple[BaseWSGIServer, str]:
    """A server that listens already, and its address."""
    host, port = _loopback(listen)
    server = make_server(host, port, create_app(guest, features), threaded=True, request_handler=_Quiet)
    named = f"[{host}]" if ":" in host else host
    return server, f"http://{named}:{server.server_port}"


def _loopback(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 1 << 16):
        raise click.UsageError(
            f"--listen {listen}: a loopback address with a port, such as 127.0.0.1:8006: who asks gets secrets"
        )
    return host, int(port)
