"""AAEL: what the attestation agent logs at run time, as tagged events.

Event data: u32 tag `AAEL`, u32 length, text `domain operation content` with single spaces. The digest is the hash of
all of it. Source: guest-components 5.6 (CoCo attestation-agent, attestation agent event log).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kbs import strict_json
from kbs.attestation.model import Json
from kbs.errors import MalformedMessage, PayloadTooLarge

TAG: Final = 0x4141454C
TAG_NAME: Final = "AAEL"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_CONTENT: Final = 16 << 10  # octets of JSON; what is longer stays text
_MAX_NESTED: Final = 32  # objects and lists in it, all together
_LIMITS: Final = strict_json.Limits(size=_MAX_CONTENT, depth=_MAX_NESTED, tokens=_MAX_CONTENT + 1)
_CLOSING: Final = {"{": "}", "[": "]", '"': '"'}
_SCALAR: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_WIDE: Final = re.compile(r"[0-9]{19}")  # digits that the narrowest of wide integers has


class Entry(NamedTuple):
    """One line of the log."""

    domain: str
    operation: str
    content: Json


def parse(text: str) -> Entry:
    """Split a line at its first two spaces.

    `content` is the JSON value if it is one for the strict decoder (no duplicate members), not large and without
    integers of more than 64 bits, signed, which readers of tokens would change; else the text.

    Raises:
        ValueError: not three parts, or a line break, NUL or other control character, with which two readers could
            see two different lines.
    """
    domain, separator, rest = text.partition(" ")
    operation, second, content = rest.partition(" ")
    if not (domain and operation and separator and second):
        raise ValueError("not `domain operation content`")
    if _CONTROL.search(text):
        raise ValueError("control characters in a line of the runtime log")
    return tuple.__new__(Entry, (domain, operation, _content(content)))  # there may be thousands


def _content(text: str) -> Json:
    if not _may_be_json(text.strip(" ")) or text.count("[") + text.count("{") > _MAX_NESTED:
        return text
    try:
        value = strict_json.decode(text.encode(), limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge):
        return text
    return text if _WIDE.search(text) and _has_wide_integer(value) else value


def _may_be_json(text: str) -> bool:
    """Whether it begins and ends like a JSON value. Most content is a digest or a name, and a refusal costs time."""
    closing = _CLOSING.get(text[:1])
    return text[-1:] == closing if closing is not None else _SCALAR.fullmatch(text) is not None


def _has_wide_integer(value: Json) -> bool:
    if isinstance(value, dict):
        return any(map(_has_wide_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_wide_integer, value))
    return type(value) is int and not -(1 << 63) <= value < 1 << 63
