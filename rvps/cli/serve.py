"""`rvps serve`: run the provider."""

from __future__ import annotations

from pathlib import Path

import click

from rvps.cli.connection import Failure
from rvps.clock import system_clock
from rvps.errors import SettingsUnacceptable
from rvps.server import log


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data directory; made at the first start.")
@click.option("--listen", default="127.0.0.1:50003", show_default=True, metavar="HOST:PORT", help="Address for gRPC.")
@click.option("--rest-listen", metavar="HOST:PORT", help="Address for REST; without it there is none.")
@click.option(
    "--insecure-unsigned", is_flag=True, help="Take unsigned messages from anybody: who reaches the port decides."
)
@click.option("--insecure-http", is_flag=True, help="No TLS, also at addresses that other machines reach.")
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), help="PEM, leaf first; without it one is made when needed."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM, not encrypted.")
@click.option("--name", "names", multiple=True, help="Further host name for the certificate that is made; repeatable.")
def serve(
    data: Path,
    listen: str,
    rest_listen: str | None,
    insecure_unsigned: bool,
    insecure_http: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    names: tuple[str, ...],
) -> None:
    """Run the reference value provider until it is stopped.

    Loopback addresses speak plain gRPC and HTTP, others TLS. Unsigned messages need the token in DATA/admin-token.
    """
    # grpc and uvicorn take half a second to load, which no other command should pay for
    from rvps.server.serve import Options, Service
    from rvps.server.serve import serve as run

    if (tls_cert is None) != (tls_key is None):
        raise Failure("--tls-cert and --tls-key go together", "give both, or neither")
    tls = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    options = Options(data.resolve(), listen, rest_listen, insecure_unsigned, insecure_http, tls, names)

    def ready(service: Service) -> None:
        click.echo(f"gRPC on {listen.rpartition(':')[0]}:{service.grpc_port}", err=True)
        if rest_listen is not None:
            click.echo(f"REST on {rest_listen.rpartition(':')[0]}:{service.rest_port}", err=True)

    log.configure()
    try:
        run(options, system_clock, ready)
    except SettingsUnacceptable as err:
        raise Failure(str(err), "mend the option or the file, and start again; `rvps serve --help`") from err
