"""Where statements are kept: the small storage port, and the log of events over it.

The port has no transaction over several keys, so an event is one record. Its key is the next number, taken by
compare-and-set; a second record, the head, is written after it and tells other processes that there is something new.
A signed message is kept aside under its own digest, written before the event that names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from rvps.errors import ProviderUnavailable
from rvps.statements.events import MAX_STORED, Event, Record, Revoked, Signed, Stated, Withdrawn, key_of, read, write
from rvps.statements.ledger import BrokenChain, Chain, Ledger, lines_of
from rvps.statements.ledger import read as read_ledger
from rvps.statements.ledger import write as write_ledger
from rvps.statements.view import View
from rvps.statements.witness import Memory, Witness
from rvps.strict_json import NotStrictJson, decode, encode

_STATEMENTS: Final = "rvps-statements"
_MESSAGES: Final = "rvps-messages"
_LEDGERS: Final = "rvps-ledger"
_LEDGER: Final = "removed"
_HEADS: Final = "rvps-head"
_HEAD: Final = "head"
_ATTEMPTS: Final = 32  # writers that may get in between before a caller is asked to try again
_READS: Final = 3  # others may remove statements while they are read

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
    """All events of one store, and the view they add up to. Callers hold a lock around every method but `change_token`.

    Every method raises `ProviderUnavailable` when the store does, and when a record is missing or changed.

    Args:
        conflict: what the store raises for a lost compare-and-set.
        unavailable: what it raises when it is down or full.
        witness: remembers the newest event elsewhere; without one it is remembered as long as this object lives.
    """

    def __init__(
        self,
        store: KeyValueStore,
        *,
        conflict: type[Exception],
        unavailable: type[Exception],
        witness: Witness | None = None,
    ) -> None:
        self._store = store
        self._witness = witness or Memory()
        self._conflict = conflict
        self._unavailable = unavailable
        self._head: int | None = None  # version of the head record that `view` was read at; None: never read
        self._told = 0  # number of the newest event that the head told others of
        self._owes = True  # whether a head may be missing: this process, or the one before it, was stopped in between
        self._ledger = Ledger()
        self._chain = Chain(self._ledger)
        self.view = View()
        self.generation = 0
        """Differs once `view` changed. After a full read `view` is another object."""

    def change_token(self) -> int:
        """The store's: equal as long as nothing in it changed."""
        with self._reaching():
            return self._store.change_token()

    def sync(self) -> None:
        """Bring the view up to date with what other processes wrote. One read when they wrote nothing."""
        with self._reaching():
            self._sync()

    def head(self) -> tuple[int, str]:
        """Number and digest (SHA-256 hex) of the newest event, for somebody else to remember."""
        return self.view.newest, self._chain.digest

    def append(self, make: Callable[[View], Event | None], message: bytes | None = None) -> Record | None:
        """Write what `make` says about the view; durable and seen by all on return. None if `make` says nothing.

        `make` is asked again when another writer was faster.

        Args:
            message: the signed message that the event names by its digest.

        Raises:
            StatementUnacceptable: from `make`, or what it made cannot be stored; nothing was written.
        """
        with self._reaching():
            for _ in range(_ATTEMPTS):
                self._sync()
                event = self._made(make)
                if event is None:
                    return None
                raw = write(event, self._chain.digest)
                if message is not None:
                    self._keep(message)
                record = read(self.view.newest + 1, raw)
                if self._put(record, raw):
                    self._publish(record)
                    self._remove_idle()
                    return record
        raise ProviderUnavailable("too many writers of reference values at once")

    def _made(self, make: Callable[[View], Event | None]) -> Event | None:
        """Where nothing will be written, whoever asked relies on what is there: then all must know of it."""
        event: Event | None = None
        try:
            event = make(self.view)
        finally:
            if event is None:
                self._tell()
        return event

    def message(self, digest: str) -> bytes | None:
        """A signed message by the SHA-256 of its bytes (hex)."""
        with self._reaching():
            record = self._store.get(_MESSAGES, digest)
        if record is None:
            return None
        if hashlib.sha256(record.value).hexdigest() != digest:
            raise ProviderUnavailable(f"the signed message {digest} is not the one that was kept")
        return record.value

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except self._unavailable as err:
            raise ProviderUnavailable("the store of reference values does not answer") from err

    def _keep(self, message: bytes) -> None:
        # Suppressed: it is there already, from a try that got no further.
        with suppress(self._conflict):
            self._store.put(_MESSAGES, hashlib.sha256(message).hexdigest(), message, meta={}, expected=0)

    def _put(self, record: Record, raw: bytes) -> bool:
        key = key_of(record.number)
        try:
            version = self._store.put(_STATEMENTS, key, raw, meta=_meta(record.event), expected=0)
        except self._conflict:
            version = 0
        if version == 1:
            return True
        # Another writer was faster, or died before its head; or so many were faster that this number was used and
        # removed again, and the statement would stand below newer ones. Take it back and read everything again.
        if version:
            self._store.delete(_STATEMENTS, key, expected=version)
        self._head = None
        return False

    def _publish(self, record: Record) -> None:
        before, self._head = self._head, None
        value = encode({"number": record.number, "digest": record.digest})
        self._owes = True
        published = self._store.put(_HEADS, _HEAD, value, meta={})
        self._owes, self._told = False, record.number
        if before is not None and published == before + 1:
            self._apply(self._chain, self.view, record)
            self.generation += 1
            self._head = published
            self._witness.saw(*self.head())

    def _tell(self) -> None:
        """Write the head that a writer still owes who was stopped before it: until then other processes do not know of
        the event, which may be a revocation."""
        if self.view.newest <= self._told:
            return
        value = encode({"number": self.view.newest, "digest": self._chain.digest})
        published = self._store.put(_HEADS, _HEAD, value, meta={})
        self._owes, self._told = False, self.view.newest
        self._head = published if self._head is not None and published == self._head + 1 else None

    def _remove_idle(self) -> None:
        """Failing here fails nobody: what was appended stands, and the next append tries again."""
        groups = [] if self._head is None or self._ledger.is_full else self.view.idle(KEPT_STATEMENTS)
        if not groups:
            return
        head, self._head = self._head, None
        links = {number: self._chain.links.pop(number) for group in groups for number in group}
        messages = [message for group in groups for message in self.view.forget(group[0])]
        gaps = self._ledger.with_gaps(links)
        try:
            raw = write_ledger(gaps, self.view.lines)
            version = self._store.put(_LEDGERS, _LEDGER, raw, meta={}, expected=self._ledger.version)
            self._ledger = Ledger(version, gaps, self.view.lines)
            for number in links:
                self._store.delete(_STATEMENTS, key_of(number))
            for message in messages:
                self._store.delete(_MESSAGES, message)
        except (self._conflict, self._unavailable):
            return  # without a head everything is read again
        self._head = head

    def _sync(self) -> None:
        record = self._store.get(_HEADS, _HEAD)
        head = record.version if record is not None else 0
        if head == self._head:
            return
        # The head was read first: what is written from here on has a later one, and is met next time.
        known, self._head = self._head, None
        if known is None or not 0 < head - known <= _PROBED:
            self._reload()
        else:
            self._probe()
        self._told = 0 if record is None else self._check_end(record.value)
        self._check_witness()
        self._head = head
        if self._owes:
            with suppress(self._unavailable):  # the next look tries again
                self._tell()
            self._owes = self.view.newest > self._told

    def _check_witness(self) -> None:
        seen = self._witness.seen()
        if seen is not None:
            try:
                self._chain.reaches(*seen)
            except BrokenChain as err:
                raise ProviderUnavailable(
                    f"the store was set back: it ends before event {key_of(seen[0])}, which was here before, or has "
                    f"another in its place; {self._witness.acceptance}"
                ) from err
        self._witness.saw(*self.head())

    def _check_end(self, raw: bytes) -> int:
        try:
            head = decode(raw, max_bytes=MAX_STORED)
            if not head:  # heads of the first form say nothing
                return self.view.newest
            self._chain.reaches(int(head["number"]), str(head["digest"]))
            return int(head["number"])
        except (NotStrictJson, KeyError, TypeError, ValueError) as err:
            raise ProviderUnavailable("the head of the statements does not read") from err

    def _reload(self) -> None:
        for attempt in range(1, _READS + 1):
            ledger = self._read_ledger()
            view, chain = View(lines_of(ledger)), Chain(ledger)
            try:
                self._read_all(ledger, chain, view)
            except BrokenChain:
                if attempt == _READS:
                    raise
                continue
            self._ledger, self._chain, self.view = ledger, chain, view
            self.generation += 1
            return

    def _probe(self) -> None:
        while (stored := self._store.get(_STATEMENTS, key_of(self.view.newest + 1))) is not None:
            self._apply(self._chain, self.view, read(self.view.newest + 1, stored.value))
            self.generation += 1

    def _read_ledger(self) -> Ledger:
        stored = self._store.get(_LEDGERS, _LEDGER)
        return Ledger() if stored is None else read_ledger(stored.version, stored.value)

    def _read_all(self, ledger: Ledger, chain: Chain, view: View) -> None:
        for entry in sorted(self._store.entries(_STATEMENTS), key=lambda found: found.key):
            number = int(entry.key)
            stored = None if ledger.removed(number) else self._store.get(_STATEMENTS, entry.key)
            if stored is not None:  # removed since the listing
                self._apply(chain, view, read(number, stored.value))

    @staticmethod
    def _apply(chain: Chain, view: View, record: Record) -> None:
        chain.follow(record)
        view.apply(record)


def _meta(event: Event) -> dict[str, str]:
    """What a listing of the store shows without opening the record."""
    if isinstance(event, Withdrawn):
        return {"type": "withdrawal", "issuer": event.issuer, "names": str(len(event.names))}
    if isinstance(event, Stated | Signed):
        kind = event.kind if isinstance(event, Stated) else event.source.kind
        return {"type": kind, "issuer": event.issuer, "names": str(len(event.values))}
    issuer = event.issuer if isinstance(event, Revoked) else event.source.publisher
    return {"type": type(event).__name__.lower(), "issuer": issuer}
