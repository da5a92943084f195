"""Where statements are kept: the small storage port, and the log of statements over it.

The port has no transaction over several keys, so a statement is one record. Its key is the next number, taken by
compare-and-set; a second record, the head, is written after it and tells other processes that there is something new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from rvps.errors import ProviderUnavailable
from rvps.statements import Draft, Statement, View, key_of, read, write

_STATEMENTS: Final = "rvps-statements"
_HEADS: Final = "rvps-head"
_HEAD: Final = "head"
_ATTEMPTS: Final = 32  # writers that may get in between before a caller is asked to try again

KEPT_STATEMENTS: Final = 64
"""The newest statements are kept even when they decide about nothing: history for people, and see `_PROBED`."""
_PROBED: Final = KEPT_STATEMENTS // 2
"""Heads that a reader may be behind and still find the new statements by counting up: none of those numbers was removed
yet. Half of what is kept, because a statement may stand without its head after a crash."""


class StoredEntry(Protocol):
    """A key that exists."""

    @property
    def key(self) -> str: ...


class StoredRecord(Protocol):
    """A key with its value and its version, which counts up by one per key."""

    @property
    def version(self) -> int: ...

    @property
    def value(self) -> bytes: ...


class KeyValueStore(Protocol):
    """What is needed of a store. The broker's own port fits as it is.

    Raises the two exception classes that `StatementLog` is told about, and nothing else.
    """

    def get(self, namespace: str, key: str, version: int | None = None) -> StoredRecord | None: ...

    def put(
        self, namespace: str, key: str, value: bytes, *, meta: Mapping[str, str], expected: int | None = None
    ) -> int: ...

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> bool: ...

    def entries(self, namespace: str, prefix: str = "") -> Sequence[StoredEntry]: ...

    def change_token(self) -> int: ...


class StatementLog:
    """All statements of one store, and the view they add up to. Callers hold a lock around `sync` and `append`.

    Every method raises `ProviderUnavailable` when the store does.

    Args:
        conflict: what the store raises for a lost compare-and-set.
        unavailable: what it raises when it is down or full.
    """

    def __init__(self, store: KeyValueStore, *, conflict: type[Exception], unavailable: type[Exception]) -> None:
        self._store = store
        self._conflict = conflict
        self._unavailable = unavailable
        self._head: int | None = None  # version of the head record that `view` was read at; None: never read
        self.view = View()
        self.generation = 0
        """Differs once `view` changed."""

    def change_token(self) -> int:
        """The store's: equal as long as nothing in it changed."""
        try:
            return self._store.change_token()
        except self._unavailable as err:
            raise ProviderUnavailable("the store of reference values does not answer") from err

    def sync(self) -> None:
        """Bring the view up to date with what other processes wrote. One read when they wrote nothing."""
        try:
            self._sync()
        except self._unavailable as err:
            raise ProviderUnavailable("the store of reference values does not answer") from err

    def append(self, make: Callable[[View], Draft | None]) -> Statement | None:
        """Write what `make` says about the view; durable and seen by all on return. None if `make` says nothing.

        `make` is asked again when another writer was faster.
        """
        try:
            for _ in range(_ATTEMPTS):
                self._sync()
                draft = make(self.view)
                if draft is None:
                    return None
                statement = Statement(self.view.newest + 1, draft)
                if self._put(statement):
                    self._publish(statement)
                    self._remove_idle()
                    return statement
        except self._unavailable as err:
            raise ProviderUnavailable("the store of reference values does not answer") from err
        raise ProviderUnavailable("too many writers of reference values at once")

    def history(self) -> Sequence[Statement]:
        """All kept statements, oldest first, those that no longer decide about anything included."""
        try:
            return self._read_all()
        except self._unavailable as err:
            raise ProviderUnavailable("the store of reference values does not answer") from err

    def _put(self, statement: Statement) -> bool:
        draft = statement.draft
        meta = {"type": draft.kind, "issuer": draft.issuer, "names": str(len(draft.values))}
        try:
            version = self._store.put(_STATEMENTS, key_of(statement.number), write(draft), meta=meta, expected=0)
        except self._conflict:
            version = 0
        if version == 1:
            return True
        # Another writer was faster, or died before its head; or so many were faster that this number was used and
        # removed again, and the statement would stand below newer ones. Take it back and read everything again.
        if version:
            self._store.delete(_STATEMENTS, key_of(statement.number), expected=version)
        self._head = None
        return False

    def _publish(self, statement: Statement) -> None:
        before, self._head = self._head, None
        published = self._store.put(_HEADS, _HEAD, b"{}", meta={})
        if before is not None and published == before + 1:
            self.view.apply(statement)
            self.generation += 1
            self._head = published

    def _remove_idle(self) -> None:
        for number in self.view.idle(KEPT_STATEMENTS):
            # Oldest first: a withdrawal must not go before what it withdraws.
            self._store.delete(_STATEMENTS, key_of(number))
            self.view.forget(number)

    def _sync(self) -> None:
        record = self._store.get(_HEADS, _HEAD)
        head = record.version if record is not None else 0
        if head == self._head:
            return
        # The head was read first: what is written from here on has a later one, and is met next time.
        if self._head is None or not 0 < head - self._head <= _PROBED:
            self._reload()
        else:
            self._probe()
        self._head = head

    def _reload(self) -> None:
        view = View()
        for statement in self._read_all():
            view.apply(statement)
        self.view = view
        self.generation += 1

    def _probe(self) -> None:
        while (record := self._store.get(_STATEMENTS, key_of(self.view.newest + 1))) is not None:
            self.view.apply(read(self.view.newest + 1, record.value))
            self.generation += 1

    def _read_all(self) -> list[Statement]:
        statements = []
        for entry in sorted(self._store.entries(_STATEMENTS), key=lambda found: found.key):
            record = self._store.get(_STATEMENTS, entry.key)
            if record is not None:  # removed since the listing
                statements.append(read(int(entry.key), record.value))
        return statements
