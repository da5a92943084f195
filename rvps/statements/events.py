"""Events: everything that changes what policies see, and the stored form of each.

One record holds one event, so it is there entirely or not at all. Each names the SHA-256 of the record before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from rvps.errors import ProviderUnavailable, StatementUnacceptable
from rvps.intake.model import Artifact
from rvps.messages import read_time
from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

MAX_STORED: Final = 16 << 20  # bytes; a message's 1 MiB may grow fourfold where `1e15` is written out in digits
NOTHING_BEFORE: Final = ""
"""In place of a digest in the first record."""

_UNCHAINED: Final = 1  # the form of records before there were signed statements
_FORMAT: Final = 2
_STORED_DEPTH: Final = MAX_DEPTH + 1  # the record around the values is one more container


@dataclass(frozen=True, slots=True)
class Stated:
    """Values that an authenticated sender vouches for. `kind` is the message type; `received` also begins validity."""

    kind: str
    issuer: str
    received: datetime
    valid_until: datetime
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Names that have no value from now on, whoever stated one before."""

    issuer: str
    received: datetime
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Who signed, and what exactly.

    kind: message type. digest: SHA-256 hex of the signed bytes. message: SHA-256 hex of the whole message as it came.
    """

    publisher: str
    signer: str
    kind: str
    digest: str
    message: str
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rules:
    """The publisher's rules when its statement arrived; they stay with the statement."""

    approvals: int
    approvers: tuple[str, ...]
    self_approval: bool
    keeps: int
    merge: Literal["replace", "append"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed set of values. Valid from `valid_from` or from when it became active, whichever is later."""

    source: Source
    rules: Rules
    received: datetime
    series: str
    serial: int
    tee: str | None
    artifacts: tuple[Artifact, ...]
    together: bool
    valid_from: datetime
    valid_until: datetime
    values: Mapping[str, Any] = field(repr=False)
    known_bad: Mapping[str, tuple[Any, ...]] = field(repr=False)

    @property
    def issuer(self) -> str:
        """The publisher and the key that signed."""
        return f"{self.source.publisher}#{self.source.signer}"


@dataclass(frozen=True, slots=True)
class Approved:
    """Consent to the statement of this digest."""

    source: Source
    received: datetime
    statement: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """The statement is void. `statement`: its digest, or its id if it was not signed. source: None: by `issuer`."""

    issuer: str
    source: Source | None
    received: datetime
    statement: str
    reason: str


Event = Stated | Withdrawn | Signed | Approved | Revoked

_KINDS: Final[Mapping[str, type[Event]]] = {
    "stated": Stated,
    "withdrawn": Withdrawn,
    "signed": Signed,
    "approved": Approved,
    "revoked": Revoked,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its place in the log.

    number: counts up by one. digest: SHA-256 hex of the stored bytes. previous: that of the record before; None in
        records of the first stored form, which had no chain.
    """

    number: int
    event: Event
    digest: str
    previous: str | None


def key_of(number: int) -> str:
    """Storage key and public id of an event; keys sort as numbers do."""
    return f"{number:016d}"


def weight_of(event: Stated | Withdrawn | Signed) -> int:
    """Bytes that a statement can add to a snapshot: its values, and for a compound set the set under each name."""
    if isinstance(event, Withdrawn):
        return 0
    times = 1 + len(event.values) if isinstance(event, Signed) and event.together else 1
    return len(encode(dict(event.values))) * times


def write(event: Event, previous: str) -> bytes:
    """The stored form of an event after the record whose digest is `previous`.

    Raises:
        StatementUnacceptable: values that are no JSON, or that would not read again: too large, too deep.
    """
    try:
        body = _body(event)
        raw = encode({"format": _FORMAT, "event": _NAMES[type(event)], "previous": previous, "body": body})
        decode(raw, max_bytes=MAX_STORED, max_depth=_STORED_DEPTH + 1)
    except (TypeError, ValueError) as err:
        text = str(err) if isinstance(err, NotStrictJson) else "values that JSON cannot say"
        raise StatementUnacceptable(f"does not fit the log: {text}") from err
    return raw


def _body(event: Event) -> dict[str, Any]:
    """Only our own members are converted; what publishers state must be JSON already."""
    if isinstance(event, Signed):
        body: dict[str, Any] = msgspec.to_builtins(replace(event, values={}, known_bad={}))
        return {**body, "values": dict(event.values), "known_bad": dict(event.known_bad)}
    if isinstance(event, Stated):
        body = msgspec.to_builtins(replace(event, values={}))
        return {**body, "values": dict(event.values)}
    return dict(msgspec.to_builtins(event))


def read(number: int, raw: bytes) -> Record:
    """Read the stored form, this one or the first.

    Raises:
        ProviderUnavailable: a record that does not read. It may be the withdrawal of a value, so skipping it is no
            option: nothing is answered until an operator has looked.
    """
    try:
        stored = decode(raw, max_bytes=MAX_STORED, max_depth=_STORED_DEPTH + 1)
        digest = hashlib.sha256(raw).hexdigest()
        if stored["format"] == _UNCHAINED:
            return Record(number, _read_unchained(stored), digest, None)
        if stored["format"] == _FORMAT and isinstance(stored["previous"], str):
            event = msgspec.convert(stored["body"], _KINDS[stored["event"]])
            return Record(number, event, digest, stored["previous"])
    except (NotStrictJson, StatementUnacceptable, KeyError, TypeError, msgspec.ValidationError) as err:
        raise ProviderUnavailable(f"statement {key_of(number)} does not read") from err
    raise ProviderUnavailable(f"statement {key_of(number)} has a form that this release does not read")


def _read_unchained(stored: Mapping[str, Any]) -> Event:
    values, received = stored["values"], read_time(stored["received"], "received")
    if not isinstance(values, dict):
        raise TypeError("values")
    if stored["type"] == "withdrawal":
        return Withdrawn(str(stored["issuer"]), received, tuple(values))
    valid_until = read_time(stored["valid_until"], "valid_until")
    return Stated(str(stored["type"]), str(stored["issuer"]), received, valid_until, values)
