"""Which bytes stand behind a version at a broker, without the bytes: MACs under a key that dies with this process.

A digest of a secret would let whoever reads it try guesses; these never leave the process.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

from kbs.secret import Secret


class Marks:
    """What this process wrote where. Safe from several threads. broker: which KeyBroker, and its address."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str, str], tuple[int, bytes]] = {}

    def remember(self, broker: tuple[str, str], path: str, version: int, value: Secret) -> None:
        """`value` was written there and is this version."""
        with self._lock:
            self._written[(*broker, path)] = (version, self._mark(value))

    def version_of(self, broker: tuple[str, str], path: str, value: Secret) -> int | None:
        """The version under which exactly these bytes were written last, if they were the last."""
        with self._lock:
            known = self._written.get((*broker, path))
        if known is None or not hmac.compare_digest(known[1], self._mark(value)):
            return None
        return known[0]

    def paths(self, key_broker: str) -> tuple[str, ...]:
        """What this process wrote and nobody took away since."""
        with self._lock:
            return tuple(sorted(path for named, _, path in self._written if named == key_broker))

    def forget(self, broker: tuple[str, str], path: str) -> None:
        """It is not there any more."""
        with self._lock:
            self._written.pop((*broker, path), None)

    def _mark(self, value: Secret) -> bytes:
        return hmac.digest(self._key, value.reveal(), hashlib.sha256)
