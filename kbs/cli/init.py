"""`kbs init`: a data directory from nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click
from rich.markup import escape

from kbs.admin.data_directory import make, make_keys
from kbs.cli.output import console, print_json
from kbs.cli.test_root import NAME, make_test_root, playable
from kbs.clock import system_clock
from kbs.config import StorageSettings

_TOKEN_LIFE = timedelta(hours=24)


@click.command("init", short_help="Make a data directory: settings, keys, TLS, an admin token.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--insecure-sample", is_flag=True, help="Enable the software TEEs. Anyone can forge their evidence.")
@click.option(
    "--insecure-test-root",
    is_flag=True,
    help=f"Trust make-believe vendors, made below DIRECTORY in {NAME}, for every --tee. Who has the folder can forge.",
)
@click.option("--insecure-http", is_flag=True, help="Serve plain HTTP.")
@click.option("--tee", "tees", multiple=True, default=("snp",), show_default=True, help="TEE to accept; repeatable.")
@click.option(
    "--name", "names", multiple=True, help="Further host name or address for the TLS certificate; repeatable."
)
@click.option("--keys-only", is_flag=True, help="Only the key files and an admin token, for replicas that share them.")
@click.option(
    "--storage",
    type=click.Choice(["sqlite", "postgres"]),
    default="sqlite",
    show_default=True,
    help="Where rules are kept.",
)
@click.option(
    "--dsn-file",
    type=click.Path(path_type=Path),
    help="With --storage postgres: file with one libpq URI. It stays where it is; the settings name it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def init_command(
    directory: Path,
    insecure_sample: bool,
    insecure_test_root: bool,
    insecure_http: bool,
    tees: tuple[str, ...],
    names: tuple[str, ...],
    keys_only: bool,
    storage: str,
    dsn_file: Path | None,
    as_json: bool,
) -> None:
    """Make a data directory: settings, keys, TLS material and an admin token for 24 hours.

    Nothing that exists is overwritten.
    """
    if keys_only:
        _keys_only(directory, as_json=as_json)
        return
    if (storage == "postgres") != (dsn_file is not None):
        raise click.UsageError("--storage postgres and --dsn-file FILE go together")
    if dsn_file is not None:
        _try_database(dsn_file)
    players = playable(tees) if insecure_test_root else ()
    made = make(
        directory,
        names=names,
        tees=tees,
        insecure_sample=insecure_sample,
        insecure_test_root=Path(NAME) if insecure_test_root else None,
        insecure_http=insecure_http,
        dsn_file=dsn_file,
        token_lifetime=_TOKEN_LIFE,
        now=system_clock(),
    )
    make_test_root(directory, players, system_clock())
    if as_json:
        print_json(
            {
                "data": str(made.data),
                "ca": None if made.ca is None else str(made.ca),
                "admin_token_file": str(made.admin_token),
                "settings": str(made.settings),
                **({"test_root": str(directory / NAME)} if insecure_test_root else {}),
            }
        )
        return
    out = console()
    out.print(f"[green]made[/] {escape(str(made.data))}")
    out.print(f"  settings     {escape(str(made.settings))}")
    out.print(f"  admin token  {escape(str(made.admin_token))} (24 hours; `kbs admin token` makes another)")
    if made.ca is not None:
        out.print(f"  CA           {escape(str(made.ca))} (give it to guests and clients)")
    if insecure_sample:
        out.print("[bold yellow]  insecure: software TEEs are enabled; anyone can forge their evidence[/]")
    if insecure_test_root:
        out.print(f"  test root    {escape(str(directory / NAME))} (for `kbs guest --insecure-test-root`)")
        out.print("[bold yellow]  insecure: whoever reads the test root can forge evidence of these TEEs[/]")
    if insecure_http:
        out.print("[bold yellow]  insecure: plain HTTP[/]")
    out.print(f"[dim]next:[/] kbs serve --data {escape(str(made.data))}")


def _keys_only(directory: Path, *, as_json: bool) -> None:
    token = make_keys(directory, token_lifetime=_TOKEN_LIFE, now=system_clock())
    if as_json:
        print_json({"keys": str(directory), "admin_token_file": str(token)})
        return
    out = console()
    out.print(f"[green]made[/] {escape(str(directory))}: sealing.key session.key token.pem admin.pem audit.pem")
    out.print(f"  admin token  {escape(str(token))} (24 hours; not for the brokers)")
    out.print("[dim]next:[/] mount the keys read-only where brokers run and name them in \\[keys] (docs/replicas.md)")


def _try_database(dsn_file: Path) -> None:
    """Nothing is made for a database that does not answer. Its tables are made by the broker when it starts."""
    from kbs.storage.postgres.opening import open_database  # takes a tenth of a second, and only this needs it

    database = open_database(Path.cwd(), StorageSettings(kind="postgres", dsn_file=dsn_file, connections=1))
    try:
        database.use(lambda db: db.execute("SELECT 1"))
    finally:
        database.close()
