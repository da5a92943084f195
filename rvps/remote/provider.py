"""A provider in another process: `rvps serve`, or another broker, over its REST API.

The newest snapshot is kept in memory by conditional polling, so that an evaluation costs no call and a revocation is
here within one interval. What cannot be refreshed for too long, or has run out, is not used: `ProviderUnavailable`.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx

from rvps import wire
from rvps.errors import NotStated, ProviderUnavailable, StatementUnacceptable
from rvps.model import (
    Expiring,
    Preview,
    ReferenceValue,
    Snapshot,
    StatedValues,
    StatementStatus,
    Submitted,
    Why,
)
from rvps.remote.http import MAX_ANSWER, Link, RemoteSettings
from rvps.snapshots import delta as snapshot_delta
from rvps.snapshots import wire as snapshot_wire
from rvps.snapshots.misses import Misses
from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

_LOG = logging.getLogger("rvps.remote.provider")
_POLL_SECONDS: Final = 10.0  # for one whole snapshot
_FIRST_WAIT: Final = 3.0  # seconds that the very first caller waits for a snapshot
_EXPIRY_WAIT: Final = 0.25  # seconds that one caller waits for the next one, where the newest has just run out
_NUMBER_DIGITS: Final = 16
_AFTER_CHANGE_WAIT: Final = 2.0  # seconds until one's own change is seen


@dataclass(frozen=True, slots=True)
class _Held:
    """The newest snapshot: its tag, when the request was sent that last confirmed it, and the newest event then."""

    snapshot: Snapshot
    tag: str
    asked: float
    number: int


class RemoteProvider:
    """`rvps.client.ReferenceValueProvider` over HTTP. Safe from several threads; its thread starts at the first use, so
    not before a fork.

    Args:
        transport: in place of the network (tests).
        ticks: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        """
        Raises:
            SettingsUnacceptable: a token that is none, or roots that do not load.
        """
        self._settings = settings
        self._ticks = ticks
        self._link = Link(settings, transport, ticks)
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._end = threading.Event()
        self._misses = Misses()
        self._held: _Held | None = None
        self._replica: snapshot_delta.Replica | None = None  # of the polling thread alone
        self._rounds = 0  # polls that came to an end
        self._failure: str | None = "it was not asked yet"
        self._waited_for: Snapshot | None = None
        self._thread: threading.Thread | None = None

    def snapshot(self, at: datetime) -> Snapshot:
        """The newest snapshot, the same object while nothing changed. No call, except that the first one waits."""
        self._start()
        held = self._held
        if held is not None and _has_ended(held.snapshot, at):
            held = self._after_expiry(held, at)
        if held is None:
            raise ProviderUnavailable(f"no reference values from {self._settings.url}: {self._failure}")
        age = self._ticks() - held.asked
        if age > self._settings.max_age_seconds:
            raise ProviderUnavailable(f"reference values are {age:.0f} s old: {self._failure}")
        return held.snapshot

    def query(self, name: str, at: datetime) -> Any | None:
        """The value of one name, or None if none is valid at `at`."""
        found = self.snapshot(at).values.get(name)
        if found is None:
            self._misses.count([name])
        return found

    def list(self, at: datetime) -> Sequence[ReferenceValue]:
        """Every stored value by name, expired ones too; asks the provider."""
        del at  # the provider's own clock tells what is valid
        return _values(self._link.forward("GET", "admin/reference-values", None))

    def register(self, message: Mapping[str, Any], *, issuer: str, at: datetime) -> Sequence[ReferenceValue]:
        """Forward a message in the name of `issuer`; the new values are in the next snapshot of this process."""
        del at
        prefer = {"Prefer": "return=representation"}
        body = self._link.forward("POST", "reference-value", encode(dict(message)), issuer=issuer, headers=prefer)
        self._see_change()
        return _values(body)

    def withdraw(self, name: str, *, issuer: str, at: datetime) -> bool:
        """Forward a withdrawal in the name of `issuer`."""
        del at
        try:
            self._link.forward("DELETE", "admin/reference-values?" + urlencode({"name": name}), None, issuer=issuer)
        except NotStated:
            return False
        self._see_change()
        return True

    def submit(self, message: Mapping[str, Any], at: datetime) -> Submitted:
        """Forward a signed message; what it changed is in the next snapshot of this process."""
        del at
        body = self._link.forward("POST", "admin/reference-values/submit", encode(dict(message)))
        self._see_change()
        return wire.read(_decoded(body), Submitted)

    def dry_run(self, message: Mapping[str, Any], at: datetime, *, issuer: str = "") -> Preview:
        """Ask what a message would do."""
        del at
        content = encode(dict(message))
        body = self._link.forward("POST", "admin/reference-values/dry-run", content, issuer=issuer or None)
        return wire.read(_decoded(body), Preview)

    def revoke(self, statement: str, *, reason: str, issuer: str, at: datetime) -> StatementStatus:
        """Forward a revocation in the name of `issuer`."""
        del at
        target = f"admin/reference-values/statements/{quote(statement, safe='')}/revoke"
        try:
            body = self._link.forward("POST", target, encode({"reason": reason}), issuer=issuer)
        except NotStated as err:
            raise StatementUnacceptable(str(err)) from err
        self._see_change()
        return wire.read(_decoded(body), StatementStatus)

    def statements(self, at: datetime) -> Sequence[StatementStatus]:
        """Every kept statement, newest first; asks the provider."""
        del at
        document = _decoded(self._link.forward("GET", "admin/reference-values/statements", None))
        return wire.read(document, tuple[StatementStatus, ...])

    def statement(self, statement: str, at: datetime) -> StatementStatus | None:
        """One statement; asks the provider."""
        del at
        target = f"admin/reference-values/statements/{quote(statement, safe='')}"
        try:
            return wire.read(_decoded(self._link.forward("GET", target, None)), StatementStatus)
        except NotStated:
            return None

    def signed_message(self, digest: str) -> bytes | None:
        """The signed bytes as they arrived; asks the provider."""
        try:
            return self._link.forward("GET", f"admin/reference-values/messages/{quote(digest, safe='')}", None)
        except NotStated:
            return None

    def why(self, name: str, value: Any | None, at: datetime) -> Why:
        """Who stated a value; asks the provider."""
        del at
        asked = {"name": name} if value is None else {"name": name, "value": encode(value).decode()}
        body = self._link.forward("GET", "admin/reference-values/why?" + urlencode(asked), None)
        return wire.read(_decoded(body), Why)

    def stated(self, statement: str) -> StatedValues | None:
        """All that one statement says; asks the provider."""
        target = f"admin/reference-values/statements/{quote(statement, safe='')}/values"
        try:
            return wire.read(_decoded(self._link.forward("GET", target, None)), StatedValues)
        except NotStated:
            return None

    def names_of(self, value: Any) -> Sequence[str]:
        """Names under which a value is stated; asks the provider."""
        target = "admin/reference-values/names?" + urlencode({"value": encode(value).decode()})
        return wire.read(_decoded(self._link.forward("GET", target, None)), tuple[str, ...])

    def expiring(self, at: datetime, within: timedelta) -> Sequence[Expiring]:
        """What ends soon; asks the provider, whose own clock counts."""
        del at
        seconds = int(within.total_seconds())
        body = self._link.forward("GET", f"admin/reference-values/expiring?within={seconds}", None)
        return wire.read(_decoded(body), tuple[Expiring, ...])

    def missed(self, names: Iterable[str]) -> None:
        """Count names that a policy of this process asked for and did not get."""
        self._misses.count(names)

    def misses(self) -> Mapping[str, int]:
        """What this process counted."""
        return self._misses.counted()

    def close(self) -> None:
        """End the thread and the connections."""
        self._end.set()
        self._link.end()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_POLL_SECONDS)
        self._link.close()

    # --- polling ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._rounds:
            return
        with self._changed:
            if not self._end.is_set():
                if self._thread is None:
                    self._thread = threading.Thread(target=self._poll_for_ever, name="references", daemon=True)
                    self._thread.start()
                self._changed.wait_for(lambda: self._rounds > 0, _FIRST_WAIT)

    def _poll_for_ever(self) -> None:
        while not self._end.is_set():
            asked = self._ticks()
            self._wake.clear()
            held: _Held | None = self._held
            failure: str | None = None
            try:
                held = self._poll(asked)
            except ProviderUnavailable as err:
                failure = str(err)
            except Exception as err:  # noqa: BLE001 - the wall of this thread: one bad round must not be the last
                failure = f"unexpected {type(err).__name__}"
            self._note(failure)
            with self._changed:
                self._held, self._failure = held, failure
                self._rounds += 1
                self._changed.notify_all()
            self._wake.wait(max(0.0, self._settings.poll_seconds - (self._ticks() - asked)))

    def _poll(self, asked: float) -> _Held:
        held = self._held
        headers = {}
        if held is not None:
            headers = {"If-None-Match": held.tag}
            if self._replica is not None and self._replica.snapshot is held.snapshot:
                headers["A-IM"] = snapshot_delta.MANIPULATION
        status, answer, body = self._link.call("GET", "admin/reference-values/snapshot", None, headers, _POLL_SECONDS)
        number = _number(status, answer)
        if held is not None and number < held.number:
            raise ProviderUnavailable(
                f"it went back from event {held.number} to {number}, as if its store were set back; "
                "restart to accept that"
            )
        if status == 304:
            if held is None or answer.get("ETag") not in (None, held.tag):
                raise ProviderUnavailable("it says that nothing changed in what we do not have")
            return _Held(held.snapshot, held.tag, asked, number)
        if status == 226:
            snapshot, tag = self._changed_by(body, answer, number)
        else:
            snapshot, tag = self._whole(body, answer, number)
        if (
            held is not None
            and snapshot.version == held.snapshot.version
            and not _says_the_same(snapshot, held.snapshot)
        ):
            self._replica = None
            raise ProviderUnavailable("it has two snapshots of one version")
        return _Held(snapshot, tag, asked, number)

    def _whole(self, body: bytes, answer: Mapping[str, str], number: int) -> tuple[Snapshot, str]:
        tag = snapshot_wire.tag_of(body)
        if not hmac.compare_digest(answer.get("ETag", "").removeprefix("W/").encode(), tag.encode()):
            raise ProviderUnavailable("its snapshot is not the one that its ETag names")
        snapshot = replace(snapshot_wire.read(body), number=number)
        self._replica = snapshot_delta.Replica(snapshot)
        return snapshot, tag

    def _changed_by(self, body: bytes, answer: Mapping[str, str], number: int) -> tuple[Snapshot, str]:
        """The snapshot after a delta. One that does not lead where its ETag says is followed by the whole."""
        replica, self._replica = self._replica, None
        if replica is None or answer.get("IM") != snapshot_delta.MANIPULATION:
            raise ProviderUnavailable("it answered with a change that was not asked for")
        tag = answer.get("ETag", "")
        snapshot = replica.apply(body, tag, number)
        self._replica = replica
        return snapshot, tag

    def _after_expiry(self, held: _Held, at: datetime) -> _Held | None:
        """The next snapshot, or None if it is not here in time. Only one caller waits for each."""
        with self._changed:
            first, self._waited_for = self._waited_for is not held.snapshot, held.snapshot
            if first:
                rounds = self._rounds
                self._wake.set()
                self._changed.wait_for(
                    lambda: (
                        self._rounds > rounds and self._held is not None and not _has_ended(self._held.snapshot, at)
                    ),
                    _EXPIRY_WAIT,
                )
            newest = self._held
        return newest if newest is not None and not _has_ended(newest.snapshot, at) else None

    def _see_change(self) -> None:
        """Wait until a poll that began after now has ended: who changed something sees it."""
        self._start()
        with self._changed:
            rounds = self._rounds
            self._wake.set()
            # the poll that is under way may have been answered before the change: the next one was not
            self._changed.wait_for(lambda: self._rounds > rounds, _AFTER_CHANGE_WAIT)
            self._wake.set()
            self._changed.wait_for(lambda: self._rounds > rounds + 1, _AFTER_CHANGE_WAIT)

    def _note(self, failure: str | None) -> None:
        """One line when it stops answering, one when it answers again."""
        if failure is not None and (self._failure is None or self._rounds == 0):
            _LOG.warning("no answer from the reference value provider", extra={"members": {"reason": failure}})
        elif failure is None and self._failure is not None and self._rounds:
            _LOG.info("the reference value provider answers again")


def _number(status: int, answer: Mapping[str, str]) -> int:
    """Of the newest event that an answer about a snapshot takes into account."""
    if status not in (200, 226, 304):
        raise ProviderUnavailable(f"it answered {status}")
    text = answer.get(snapshot_wire.NUMBER, "")
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS):
        raise ProviderUnavailable("its answer does not say how new it is")
    return int(text)


def _says_the_same(one: Snapshot, other: Snapshot) -> bool:
    return (one.encoded, one.encoded_sets) == (other.encoded, other.encoded_sets)


def _has_ended(snapshot: Snapshot, at: datetime) -> bool:
    return snapshot.valid_until is not None and at >= snapshot.valid_until


def _values(body: bytes) -> Sequence[ReferenceValue]:
    return wire.read(_decoded(body), tuple[ReferenceValue, ...])


def _decoded(body: bytes) -> Any:
    try:
        return decode(body, max_bytes=MAX_ANSWER, max_depth=MAX_DEPTH + 8)
    except NotStrictJson as err:
        raise ProviderUnavailable(f"its answer does not read: {err}") from err
