"""`kbs storage`: the tables of a shared database, and the way from one store to another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from pathlib import Path
from typing import cast

import click
from rich.progress import Progress, SpinnerColumn, TextColumn

from kbs import config
from kbs.cli.output import console, done, print_json
from kbs.config import Settings
from kbs.errors import ConfigInvalid
from kbs.secret import Secret
from kbs.storage.choice import open_rules
from kbs.storage.copying import Copyable, copy
from kbs.storage.sealed import SealingKeys, read_key

_DATA = click.Path(file_okay=False, exists=True, path_type=Path)


@click.group("storage", short_help="Stores: copy one into another, make the tables of a shared database.")
def storage_group() -> None:
    """Where rules and resources are kept: docs/storage.md."""


@storage_group.command("copy")
@click.option("--from", "source", type=_DATA, required=True, help="Data directory of the broker that has the records.")
@click.option("--to", "target", type=_DATA, required=True, help="Data directory of the broker that has none yet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def copy_command(source: Path, target: Path, as_json: bool) -> None:
    """Copy all rules and resources, every version with its number, from one store into an empty one.

    Stop the brokers of both first. Nothing is decrypted: both need the same keys/sealing.key. The audit log and what is
    short-lived (challenges, decisions kept for replays) stay where they are.
    """
    settings = {data: _settings(data) for data in (source, target)}
    keys = [read_key(data / settings[data].keys.sealing) for data in (source, target)]
    if not compare_digest(*keys):
        raise ConfigInvalid(
            f"the sealing keys differ; copy {source / settings[source].keys.sealing} to "
            f"{target / settings[target].keys.sealing} first: the records stay as they are sealed"
        )
    sealing = SealingKeys([Secret(keys[1])])
    columns = (SpinnerColumn(), TextColumn("{task.completed} copied, {task.description}", markup=False))
    bar = Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with _opened(source, settings[source]) as old, _opened(target, settings[target]) as new, bar as progress:
        task = progress.add_task("", total=None)
        copied = copy(old, new, sealing, lambda one: progress.update(task, advance=1, description=one.namespace))
    if as_json:
        print_json({"from": str(source), "to": str(target), "keys": copied.keys, "versions": copied.versions})
        return
    done("copied", f"{copied.versions} versions of {copied.keys} records, and read each of them again")
    done("next:", f"kbs serve --data {target}")


@storage_group.command("prepare")
@click.option(
    "--dsn-file", type=click.Path(path_type=Path), required=True, help="Address of the database, as the tables' owner."
)
@click.option("--insecure-transport", is_flag=True, help="Go on without sslmode=verify-full to another machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prepare_command(dsn_file: Path, insecure_transport: bool, as_json: bool) -> None:
    """Make the tables in PostgreSQL, or check those that are there, for brokers whose own role may not make any."""
    from kbs.audit.postgres_tables import FORMAT as AUDIT
    from kbs.storage.postgres.handshakes import FORMAT as HANDSHAKES
    from kbs.storage.postgres.key_value import FORMAT as RULES
    from kbs.storage.postgres.opening import open_database
    from kbs.storage.postgres.recent import FORMAT as RECENT
    from kbs.storage.postgres.seal import FORMAT as SEAL

    storage = config.StorageSettings(
        kind="postgres", dsn_file=dsn_file, connections=1, insecure_transport=insecure_transport
    )
    database = open_database(Path.cwd(), storage)
    formats = (RULES, HANDSHAKES, RECENT, AUDIT, SEAL)
    try:
        for form in formats:
            database.prepare(form)
    finally:
        database.close()
    if as_json:
        print_json({"database": database.name, "formats": {form.part: form.version for form in formats}})
        return
    done("ready", database.name)
    done("tables:", ", ".join(f"{form.part} (format {form.version})" for form in formats))


def _settings(data: Path) -> Settings:
    """Of one directory; variables are for one broker, and here are two."""
    settings = config.load(data, {})
    if settings.storage.kind == "memory":
        raise ConfigInvalid(f"{data}: storage.kind = memory keeps nothing to copy")
    return settings


@contextmanager
def _opened(data: Path, settings: Settings) -> Iterator[Copyable]:
    rules, database = open_rules(data, settings.storage)
    try:
        yield cast(Copyable, rules)  # all but that in memory can be copied
    finally:
        rules.close()
        if database is not None:
            database.close()
