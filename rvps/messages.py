"""RVPS messages: the envelope around provenance, and what every name and date must look like."""

from __future__ import annotations

import base64
import binascii
import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from rvps.errors import StatementUnacceptable
from rvps.extractors import extractor_for

VERSION: Final = "0.1.0"
MAX_NAME: Final = 255  # characters
DEFAULT_LIFE_MONTHS: Final = 12
MAX_MESSAGE: Final = 8 << 20
"""Bytes of one signed message after base64, checked before any signature; 10 000 values of 100 bytes are 2 MiB."""
_MAX_PAYLOAD_TEXT: Final = 2 << 20  # characters of base64; each extractor has its own limit below this
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What one message says, in whole seconds. `kind` is the extractor's name."""

    kind: str
    values: Mapping[str, Any] = field(repr=False)
    valid_from: datetime
    valid_until: datetime


def read_payload(message: Mapping[str, Any]) -> bytes:
    """The payload of a message whose signature is yet to be verified; nothing in it is read.

    Raises:
        StatementUnacceptable: no base64, or more than `MAX_MESSAGE` bytes of it.
    """
    return _payload(_text(message, "payload"), _base64_length(MAX_MESSAGE))


def check_signed(message: Mapping[str, Any]) -> None:
    """The members around a signed payload: `version` as for `read`, and no `expiration`.

    Raises:
        StatementUnacceptable: any of them.
    """
    _check_version(message)
    if message.get("expiration") is not None:
        raise StatementUnacceptable("a signed message says itself when it expires: `expiration` has no place beside it")


def read(message: Mapping[str, Any], at: datetime) -> Provenance:
    """Check one decoded message and extract its values, received at `at`.

    Members: `version` (default 0.1.0, nothing else is taken), `type`, `payload` (base64, standard alphabet, padded) and
    our own optional `expiration` (`YYYY-MM-DDTHH:MM:SSZ`, default twelve calendar months). Others are ignored.

    Raises:
        StatementUnacceptable: any member, any name, or an expiration that has passed.

    Source: rvps 2.1, 3.
    """
    _check_version(message)
    kind = _text(message, "type")
    extract = extractor_for(kind)
    values = extract(_payload(_text(message, "payload"), _MAX_PAYLOAD_TEXT))
    for name in values:
        check_name(name)
    valid_from = at.astimezone(UTC).replace(microsecond=0)
    if message.get("expiration") is None:
        valid_until = months_later(valid_from, DEFAULT_LIFE_MONTHS)
    else:
        valid_until = read_time(_text(message, "expiration"), "expiration")
        if valid_until <= at:
            raise StatementUnacceptable("expiration has passed")
    return Provenance(kind, values, valid_from, valid_until)


def check_name(name: str) -> None:
    """Refuse names that could not be shown or could not travel in a path; anything printable else is allowed.

    Raises:
        StatementUnacceptable: empty, longer than 255 characters, not printable (control characters, surrogates, line
            separators), or with a `.` or `..` between slashes, which URL libraries fold away.

    Source: rvps 9: `:`, `/` and spaces occur in names that vendors and releases use.
    """
    if not name or len(name) > MAX_NAME:
        raise StatementUnacceptable(f"a name is empty or longer than {MAX_NAME} characters")
    if not name.isprintable():
        raise StatementUnacceptable("a name holds characters that cannot be printed")
    if not {".", ".."}.isdisjoint(name.split("/")):
        raise StatementUnacceptable("a name holds a segment `.` or `..`")


def months_later(moment: datetime, months: int) -> datetime:
    """The same day and time `months` calendar months later; the last day of the month where that day is missing."""
    years, month = divmod(moment.month - 1 + months, 12)
    year, month = moment.year + years, month + 1
    return moment.replace(year=year, month=month, day=min(moment.day, monthrange(year, month)[1]))


def read_time(text: str, what: str) -> datetime:
    """Exactly `YYYY-MM-DDTHH:MM:SSZ`, as reference values write their expiration.

    Raises:
        StatementUnacceptable: any other form, or no such date.
    """
    try:
        if _TIME.fullmatch(text):
            return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as err:
        raise StatementUnacceptable(f"{what}: no such date") from err
    raise StatementUnacceptable(f"{what}: not of the form YYYY-MM-DDTHH:MM:SSZ")


def write_time(moment: datetime) -> str:
    """The form `read_time` reads; fractions are dropped."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _text(message: Mapping[str, Any], member: str, default: str | None = None) -> str:
    value = message.get(member, default)
    if not isinstance(value, str):
        raise StatementUnacceptable(f"parse message: `{member}` is {'missing' if value is None else 'not a string'}")
    return value


def _check_version(message: Mapping[str, Any]) -> None:
    version = _text(message, "version", VERSION)
    if version != VERSION:
        raise StatementUnacceptable(f"Version unmatched! Need {VERSION}, given {version[:32]}.")


def _base64_length(size: int) -> int:
    """Characters of `size` bytes in base64 with padding."""
    return (size + 2) // 3 * 4


def _payload(text: str, most: int) -> bytes:
    if len(text) > most:
        raise StatementUnacceptable("payload is too long")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise StatementUnacceptable("base64 decode of payload failed (standard alphabet, with padding)") from err
    if base64.b64encode(raw).decode() != text:
        raise StatementUnacceptable("base64 decode of payload failed (not in its one form)")
    return raw
