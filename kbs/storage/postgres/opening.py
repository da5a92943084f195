"""From settings to a database."""

from __future__ import annotations

from pathlib import Path

from kbs.config import StorageSettings
from kbs.errors import ConfigInvalid
from kbs.secret import Secret
from kbs.storage.postgres.address import is_verified, read_dsn
from kbs.storage.postgres.database import Database


def open_database(data: Path, storage: StorageSettings) -> Database:
    """The database that the settings name; nothing is connected yet. A changed file holds from the next connect on.

    Raises:
        ConfigInvalid: no usable `storage.dsn_file`, or one that leads to another machine without `verify-full`.
    """
    if storage.dsn_file is None:
        raise ConfigInvalid("settings: storage.kind = postgres needs storage.dsn_file")
    path = data / storage.dsn_file

    def read() -> Secret:
        dsn = read_dsn(path)
        if not is_verified(dsn) and not storage.insecure_transport:
            raise ConfigInvalid(
                f"storage.dsn_file {path}: another machine without sslmode=verify-full: anybody on the way can answer "
                "in its place; add it with sslrootcert=FILE, or set storage.insecure_transport = true"
            )
        return dsn

    return Database(read(), connections=storage.connections, renew=read)
