"""Which sealing key a shared database belongs to: a broker with another one could read nothing there, and what it wrote
nobody else.
"""

from __future__ import annotations

from typing import Final

from kbs.errors import ConfigInvalid
from kbs.storage.postgres.database import Connection, Database, Format
from kbs.storage.sealed import SealBroken, SealingKeys

FORMAT: Final = Format(
    part="seal",
    version=1,
    schema=(
        """CREATE TABLE kbs_seal (
            one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), sealed BYTEA NOT NULL
        )""",
    ),
)

_PURPOSE: Final = b"whose database"
_BOUND: Final = b"kbs_seal"
_KEEP: Final = "INSERT INTO kbs_seal (sealed) VALUES (%b) ON CONFLICT DO NOTHING"
_FIND: Final = "SELECT sealed FROM kbs_seal"


def check_key(database: Database, sealing: SealingKeys) -> None:
    """Whether this broker has the key of those that are there; the first one leaves the mark.

    Raises:
        ConfigInvalid: it has another.
        StorageUnavailable: as `Database.use`.
    """
    database.prepare(FORMAT)
    keys = sealing.for_purpose(_PURPOSE)

    def find(db: Connection) -> bytes | None:
        row = db.execute(_FIND, binary=True).fetchone()
        return None if row is None else bytes(row[0])

    mark = database.use(find, repeatable=True)
    if mark is None:
        database.use(lambda db: db.execute(_KEEP, (keys.seal(b"", _BOUND),)))
        mark = database.use(find, repeatable=True)
    if mark is None:
        raise database.unavailable("the one row of kbs_seal is missing")
    try:
        keys.open(mark, _BOUND)
    except SealBroken:
        raise ConfigInvalid(
            f"keys.sealing is not the sealing key of this database ({database.name}): all brokers that share one need "
            "the same"
        ) from None
