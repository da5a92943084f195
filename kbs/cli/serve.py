"""`kbs serve`: run the broker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from kbs.config import check, load
from kbs.server import serve
from kbs.web import log


@click.command("serve", short_help="Run the broker.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Data directory, made by `kbs init`; what is missing in it but keys and settings is made.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings, in place of DATA/kbs.toml; the variable KBS_CONFIG names it for every command.",
)
@click.option("--listen", "listen", multiple=True, metavar="HOST:PORT", help="Address to listen on; repeatable.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; by default one per core.")
def serve_command(data: Path, config_file: Path | None, listen: tuple[str, ...], workers: int | None) -> None:
    """Run the broker until it is stopped.

    Settings come from DATA/kbs.toml, or from the file that --config or the variable KBS_CONFIG names, and from
    variables KBS__SECTION__KEY. Keys are never made here: `kbs init` does that.
    """
    log.configure()
    settings = load(data, file=config_file)
    server = settings.server
    if listen:
        server = replace(server, listen=listen)
    if workers is not None:
        server = replace(server, workers=workers)
    settings = replace(settings, server=server)
    check(settings)  # again: what the file says may not go with what the command line says
    serve(data.resolve(), settings)
