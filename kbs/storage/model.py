"""The storage ports.

`KeyValueStore` keeps rules and resources: versioned, compare-and-set, acknowledged means durable.
`HandshakeStore` keeps what a finished or spent challenge leaves behind: short-lived, claimed exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one key, without its value.

    version: 1 for the first, counting up by one per key for ever, also across a delete.
    meta: small text members kept beside the value, bound to it by the seal but readable without the sealing key
        (author, time, reason, size …); never secret.
    """

    key: str
    version: int
    meta: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one key with its value."""

    key: str
    version: int
    meta: Mapping[str, str]
    value: bytes = field(repr=False)


class KeyValueStore(Protocol):
    """Versioned records in namespaces. Safe from several threads and processes.

    Namespaces and keys are made by our own code from validated names. Raises `StorageUnavailable` when the store is
    down or full or a record does not open, `VersionConflict` from a lost compare-and-set; on both nothing is written.
    """

    def get(self, namespace: str, key: str, version: int | None = None) -> Record | None:
        """The current version, or a past one. None if there is none (also after a delete)."""

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int:
        """Write the next version and return its number; durable on return.

        expected: version that must be current (0: must not exist now); None: whatever is there.
        """

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool:
        """Remove a key and the values of all its versions; False if it did not exist. Version numbers go on."""

    def entries(self, namespace: str, prefix: str = "") -> Sequence[Entry]:
        """Current entries by key, sorted."""

    def history(self, namespace: str, key: str) -> Sequence[Entry]:
        """Kept versions of one key, oldest first."""

    def change_token(self) -> int:
        """A number that differs once anything in the store changed: at once for changes of this process, for those of
        others as soon as the implementation looks (well under a second). Costs microseconds."""

    def close(self) -> None:
        """Release files and connections."""


class Claim(Enum):
    """What a try to claim a challenge met."""

    CLAIMED = auto()
    """It was free and is now ours; spent from this moment on."""
    IN_PROGRESS = auto()
    """Somebody else claimed it and has not finished."""
    SPENT = auto()
    """It was answered before and led to a refusal, or by another body than this one."""
    FINISHED = auto()
    """It was answered before by the identical body; `HandshakeStore.token` has the token."""
    VOID = auto()
    """It was made in another epoch: nobody knows any more whether it was answered."""


class HandshakeStore(Protocol):
    """Challenges that were answered. Open challenges are not stored: they travel sealed in the cookie.

    A claim survives kill -9 of any process and is seen by all workers and replicas at once. When claims were lost (a
    restart of the machine, a crash of the database) `epoch` differs, which voids every cookie sealed before.
    """

    @property
    def epoch(self) -> bytes:
        """16 octets, bound into each sealed cookie. It may change at any time where replicas share a database.

        Raises:
            StorageUnavailable: nobody can say which one it is.
        """

    def claim(
        self, challenge_id: str, body_digest: bytes, expires: datetime, now: datetime, epoch: bytes | None = None
    ) -> Claim:
        """Compare-and-set: at most one caller ever gets CLAIMED for one id.

        Args:
            challenge_id, expires: of the challenge.
            body_digest: SHA-256 of what answers it.
            now: the moment.
            epoch: the one in which the challenge's cookie was sealed; none: the current one.

        Raises:
            StorageUnavailable: down, or so many live claims that none of the oldest may leave for this one.
        """

    def release(self, challenge_id: str) -> None:
        """Give a claim back (only after a 503: the evidence was not judged)."""

    def refuse(self, challenge_id: str) -> None:
        """Mark a claimed challenge as answered and refused."""

    def finish(self, challenge_id: str, token: str) -> None:
        """Keep the token of a claimed challenge until it expires."""

    def token(self, challenge_id: str, now: datetime) -> str | None:
        """The token of a finished handshake that has not expired."""

    def together(self) -> AbstractContextManager[object]:
        """What this thread finishes, refuses or releases inside costs less. Each is still done or not by itself."""

    def look(self) -> None:
        """Know what other processes did, so that no guest waits until this one does; about once a second."""

    def sweep(self, now: datetime) -> int:
        """Forget what expired; how many."""

    def close(self) -> None:
        """Release files and connections."""
