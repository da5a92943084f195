"""What the REST API answers, free of any framework: the same requests and answers at a broker and at `rvps serve`.

Each function runs one operation at a provider and words its answer; who may ask, and how a refusal looks on the wire,
is the caller's business.

Raises (all of them):
    StatementUnacceptable: the sender is at fault; nothing was stored.
    NotStated: there is no such name or statement.
    ProviderUnavailable: try later.
"""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Final

from rvps import wire
from rvps.client import ReferenceValueProvider
from rvps.errors import NotStated, StatementUnacceptable
from rvps.model import ReferenceValue, Snapshot
from rvps.snapshots import delta as snapshot_delta
from rvps.snapshots import wire as snapshot_wire
from rvps.strict_json import MAX_TOKENS, NotStrictJson, decode, encode

JSON: Final = "application/json"
MAX_MESSAGE: Final = 12 << 20
"""Octets of one message: what a signed one may hold grows by a third in base64."""

_WITHIN: Final = 30 * 86_400  # seconds
_LONGEST: Final = 20 * 366 * 86_400  # seconds
_GZIP_FROM: Final = 1024  # octets
_BASES: Final = 6  # older snapshots from which a delta is offered
_MAX_NAME_SHOWN: Final = 255


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation changed, for the record. statement: id, or None where nothing was stored."""

    action: str
    names: tuple[str, ...]
    statement: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. A body is JSON if `content_type` says so."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    change: Change | None = None


def message_of(body: bytes) -> dict[str, Any]:
    """Decode an RVPS message.

    Raises:
        StatementUnacceptable: it is no JSON object; the first words are upstream's.
    """
    try:
        message = decode(body, max_bytes=MAX_MESSAGE, max_tokens=MAX_TOKENS)
    except NotStrictJson as err:
        raise StatementUnacceptable(f"parse message: {err}") from err
    if not isinstance(message, dict):
        raise StatementUnacceptable("parse message: not a JSON object")
    return message


def query(provider: ReferenceValueProvider, name: str, at: datetime) -> Answer:
    """GET reference-value/<name…>: the value itself."""
    value = provider.query(name, at)
    if value is None:
        shown = name if name.isprintable() and len(name) <= _MAX_NAME_SHOWN else "(not printable, or too long)"
        raise NotStated(f"No reference value found for the given id: {shown}")
    return Answer(200, encode(value))


def registered(values: Sequence[ReferenceValue], at: datetime, *, represent: bool) -> Answer:
    """POST reference-value: upstream's answer is empty; `Prefer: return=representation` lists what was stored."""
    change = Change("register", tuple(value.name for value in values), values[0].statement if values else None)
    if not represent:
        return Answer(200, change=change)
    applied = (("Preference-Applied", "return=representation"),)
    return Answer(200, encode([document(value, at) for value in values]), headers=applied, change=change)


def list_values(provider: ReferenceValueProvider, at: datetime, *, name: str | None = None, prefix: str = "") -> Answer:
    """GET admin/reference-values[?name=…|?prefix=…]: stored values with issuer and validity, expired ones too."""
    found = [
        document(value, at)
        for value in provider.list(at)
        if value.name.startswith(prefix) and (name is None or value.name == name)
    ]
    return Answer(200, encode(found))


def withdraw(provider: ReferenceValueProvider, name: str, *, issuer: str, at: datetime) -> Answer:
    """DELETE admin/reference-values/<name…> or ?name=…: gone at once."""
    if not provider.withdraw(name, issuer=issuer, at=at):
        raise NotStated("no reference value of that name")
    return Answer(200, change=Change("withdraw", (name,)))


def submit(provider: ReferenceValueProvider, body: bytes, at: datetime) -> Answer:
    """POST admin/reference-values/submit: a signed message; answers with what it did and the state it led to."""
    done = provider.submit(message_of(body), at)
    change = Change(done.does, done.status.names, done.status.id)
    return Answer(200, encode(wire.document_of(done)), change=change)


def dry_run(provider: ReferenceValueProvider, body: bytes, *, issuer: str, at: datetime) -> Answer:
    """POST admin/reference-values/dry-run: what any message would do; stores nothing."""
    return Answer(200, encode(wire.document_of(provider.dry_run(message_of(body), at, issuer=issuer))))


def statements(provider: ReferenceValueProvider, at: datetime, *, state: str | None = None) -> Answer:
    """GET admin/reference-values/statements[?state=…]: newest first."""
    found = [status for status in provider.statements(at) if state is None or status.state == state]
    return Answer(200, encode(wire.document_of(found)))


def statement(provider: ReferenceValueProvider, wanted: str, at: datetime) -> Answer:
    """GET admin/reference-values/statements/<id or digest>."""
    found = provider.statement(wanted, at)
    if found is None:
        raise NotStated("no such statement is kept")
    return Answer(200, encode(wire.document_of(found)))


def revoke(provider: ReferenceValueProvider, wanted: str, body: bytes, *, issuer: str, at: datetime) -> Answer:
    """POST admin/reference-values/statements/<id or digest>/revoke {"reason": …}: void at once, for ever."""
    reason = message_of(body).get("reason") if body else None
    if not isinstance(reason, str):
        raise StatementUnacceptable('a revocation says why: {"reason": …}')
    if provider.statement(wanted, at) is None:
        raise NotStated("no such statement is kept")
    status = provider.revoke(wanted, reason=reason, issuer=issuer, at=at)
    return Answer(200, encode(wire.document_of(status)), change=Change("revoke", status.names, status.id))


def why(provider: ReferenceValueProvider, name: str, value: str | None, at: datetime) -> Answer:
    """GET admin/reference-values/why?name=…[&value=<JSON>]: who stated it, from what, until when."""
    return Answer(200, encode(why_document(provider, name, value, at)))


def why_document(provider: ReferenceValueProvider, name: str, value: str | None, at: datetime) -> dict[str, Any]:
    """The answer of `why` before it is encoded, for who has more to say."""
    found: dict[str, Any] = wire.document_of(provider.why(name, value_of(value), at))
    return found


def value_of(text: str | None) -> Any:
    """A value that a query brings as JSON; None for none."""
    try:
        return None if text is None else decode(text.encode(), max_bytes=MAX_MESSAGE)
    except (NotStrictJson, UnicodeEncodeError) as err:
        raise StatementUnacceptable(f"value: {err}") from err


def stated(provider: ReferenceValueProvider, wanted: str) -> Answer:
    """GET admin/reference-values/statements/<id or digest>/values: all that one statement says."""
    found = provider.stated(wanted)
    if found is None:
        raise NotStated("no such statement is kept")
    return Answer(200, encode(wire.document_of(found)))


def names_of(provider: ReferenceValueProvider, value: str | None) -> Answer:
    """GET admin/reference-values/names?value=<JSON>: under which names a value is stated."""
    if value is None:
        raise StatementUnacceptable("which value? `value` is missing")
    return Answer(200, encode(list(provider.names_of(value_of(value)))))


def expiring(provider: ReferenceValueProvider, within: str | None, at: datetime) -> Answer:
    """GET admin/reference-values/expiring[?within=<seconds>]: what has expired and what will, the first first."""
    text = str(_WITHIN) if within is None else within
    if not (text.isascii() and text.isdigit() and int(text[:12]) <= _LONGEST):
        raise StatementUnacceptable(f"within: a number of seconds up to {_LONGEST}")
    return Answer(200, encode(wire.document_of(list(provider.expiring(at, timedelta(seconds=int(text)))))))


def misses(provider: ReferenceValueProvider) -> Answer:
    """GET admin/reference-values/misses: names that this process was asked for and had no value of, most frequent
    first."""
    return Answer(200, encode([{"name": name, "count": count} for name, count in provider.misses().items()]))


def signed_message(provider: ReferenceValueProvider, digest: str) -> Answer:
    """GET admin/reference-values/messages/<SHA-256>: the signed bytes as they arrived."""
    found = provider.signed_message(digest)
    if found is None:
        raise NotStated("no such message is kept")
    return Answer(200, found, "application/octet-stream")


def document(value: ReferenceValue, at: datetime) -> dict[str, Any]:
    """One value with its metadata, as listings show it."""
    return {**wire.document_of(value), "valid": value.is_valid(at)}


@dataclass(slots=True)
class _Written:
    """A snapshot with its ETag and octets; `packed` and the deltas from older ones are made for the first who asks."""

    snapshot: Snapshot
    tag: str
    plain: bytes
    packed: bytes | None = None
    deltas: dict[str, bytes] = field(default_factory=dict)


class SnapshotAnswers:
    """GET admin/reference-values/snapshot: one encoding for all brokers that poll, 304 for who has it already, what
    changed for who has one of the last few (RFC 3229: `A-IM`, 226)."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._newest: _Written | None = None
        self._older: deque[tuple[str, Snapshot]] = deque(maxlen=_BASES)

    def answer(
        self, snapshot: Snapshot, *, if_none_match: str | None, accept_encoding: str | None, a_im: str | None = None
    ) -> Answer:
        """The ETag covers version and end of validity: a restated value that only lives longer is news too."""
        written = self._written(snapshot)
        headers = (
            ("ETag", written.tag),
            (snapshot_wire.NUMBER, str(snapshot.number)),
            ("Cache-Control", "no-cache"),
            ("Vary", "Accept-Encoding, A-IM"),
        )
        known = _listed(if_none_match)
        if written.tag in known:
            return Answer(304, headers=headers)
        if snapshot_delta.MANIPULATION in _listed(a_im):
            delta = self._delta(written, known)
            if delta is not None:
                return Answer(226, delta, headers=(*headers, ("IM", snapshot_delta.MANIPULATION)))
        if "gzip" in _listed(accept_encoding) and len(written.plain) >= _GZIP_FROM:
            return Answer(200, self._packed(written), headers=(*headers, ("Content-Encoding", "gzip")))
        return Answer(200, written.plain, headers=headers)

    def _written(self, snapshot: Snapshot) -> _Written:
        newest = self._newest
        if newest is not None and newest.snapshot is snapshot:
            return newest
        with self._lock:
            newest = self._newest
            if newest is None or newest.snapshot is not snapshot:
                if newest is not None:
                    self._older.append((newest.tag, newest.snapshot))
                plain = snapshot_wire.write(snapshot)
                newest = self._newest = _Written(snapshot, snapshot_wire.tag_of(plain), plain)
            return newest

    def _delta(self, written: _Written, known: Sequence[str]) -> bytes | None:
        """From a snapshot that the broker has, if it is still here and the way is shorter than the whole."""
        with self._lock:
            for tag, old in self._older:
                if tag in known:
                    if tag not in written.deltas:
                        written.deltas[tag] = snapshot_delta.write(old, written.snapshot)
                    return written.deltas[tag] if len(written.deltas[tag]) < len(written.plain) // 2 else None
        return None

    def _packed(self, written: _Written) -> bytes:
        with self._lock:
            if written.packed is None:
                written.packed = gzip.compress(written.plain, compresslevel=1, mtime=0)
            return written.packed


def _listed(header: str | None) -> Sequence[str]:
    """The members of a list header. Clients of ours say plainly what they take; who weighs gets the plain form."""
    return [part.strip() for part in (header or "").split(",")]
