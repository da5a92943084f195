"""Admin tokens that stopped working before their time, kept in the store and so seen by every worker at once."""

from __future__ import annotations

from kbs.clock import Clock
from kbs.storage.model import KeyValueStore

NAMESPACE = "admin-revocations"


class Revocations:
    """Look-ups come from memory and are refreshed when the store's change token moved."""

    def __init__(self, store: KeyValueStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: tuple[int, frozenset[str]] | None = None

    def is_revoked(self, token_id: str) -> bool:
        """Whether this `jti` was revoked.

        Raises:
            StorageUnavailable: the list cannot be read.
        """
        token = self._store.change_token()
        if self._seen is None or self._seen[0] != token:
            self._seen = (token, frozenset(entry.key for entry in self._store.entries(NAMESPACE)))
        return token_id in self._seen[1]

    def revoke(self, token_id: str, *, author: str) -> None:
        """Take a token out of force; durable on return. Unknown ids are taken too: they may be about."""
        meta = {"author": author, "time": self._clock().isoformat()}
        self._store.put(NAMESPACE, token_id, b"", meta=meta)
