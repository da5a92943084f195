"""The address of a database: one libpq URI in a file, and what we add to it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kbs.errors import ConfigInvalid
from kbs.secret import Secret

_SECRETS: Final = ("password", "sslpassword")
_SHOWN: Final = ("host", "port", "dbname", "user")
_MAX_DSN: Final = 4096  # octets of a file with one address


def read_dsn(path: Path) -> Secret:
    """The address of a database: one libpq URI (or keyword=value text) in a file.

    Raises:
        ConfigInvalid: no such file, or not such a text. What is in it is not repeated: there is a password.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_DSN + 1)
    except OSError as err:
        raise ConfigInvalid(f"storage.dsn_file {path}: {err.strerror}") from None
    try:
        text = raw.decode("utf-8").strip()
        if not text or len(raw) > _MAX_DSN or any(ord(character) < 32 for character in text):
            raise ValueError
        conninfo_to_dict(text)
    except (ValueError, psycopg.Error):
        raise ConfigInvalid(
            f"storage.dsn_file {path}: expected one line such as postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    return Secret(text.encode())


def is_verified(dsn: Secret) -> bool:
    """Whether nobody on the way can listen or answer in the server's place: verify-full, or within this machine."""
    parts = conninfo_to_dict(dsn.reveal().decode())
    if parts.get("sslmode") == "verify-full":
        return True
    hosts = str(parts.get("hostaddr") or parts.get("host") or "").split(",")
    # no host: a Unix socket, unless PGHOST says otherwise, which `complete` does not let through
    return all(host in ("", "localhost", "127.0.0.1", "::1") or host.startswith(("/", "@")) for host in hosts)


def complete(dsn: Secret, *, connect: int, answer: float) -> Secret:
    """With what is missing: the primary among several hosts, time-outs for dead links; and nothing of it is left to
    variables of the process, which `is_verified` does not see.

    connect, answer: seconds, as in `Limits`.
    """
    parts = conninfo_to_dict(dsn.reveal().decode())
    defaults: dict[str, str | int | None] = {
        "host": "",  # the Unix socket
        "hostaddr": "",
        "gssencmode": "disable",  # else it would be used in place of TLS, whose certificate nobody looked at then
        "connect_timeout": connect,
        "target_session_attrs": "read-write",
        "application_name": "kbs",
        "tcp_user_timeout": int(answer * 1000),
        "keepalives_idle": max(1, int(answer)),
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    return Secret(make_conninfo("", **{**defaults, **parts}).encode())


def secrets_in(dsn: Secret) -> list[str]:
    """What no text for people may have."""
    parts = conninfo_to_dict(dsn.reveal().decode())
    return [str(parts[name]) for name in _SECRETS if parts.get(name)]


def shown(dsn: Secret) -> str:
    """Where it leads, for people."""
    parts = conninfo_to_dict(dsn.reveal().decode())
    return make_conninfo("", **{name: parts[name] for name in _SHOWN if parts.get(name) is not None})
