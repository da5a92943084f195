"""JSON from strangers and JSON for peers: one strict decoder, one encoder, one canonical form.

The decoder caps size, depth, tokens and digits before any object is built, and refuses what lenient parsers let
through: duplicate members, NaN and infinities (also `1e999`), lone surrogates, a byte order mark, trailing data,
invalid UTF-8. Integers stay exact at any width. No refusal repeats a byte of its input.

Source: RFC 8259, RFC 8785; threat model 6.2 and P-DOS-1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import rfc8785

from kbs.errors import MalformedMessage, PayloadTooLarge, ServerFault

Json = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""

Encoded = msgspec.Raw
"""JSON that `encode` wrote, for `encode_around`."""

ENCODE_DEPTH: Final = 200  # nested arrays and objects; decoded bodies have at most 64, tokens wrap them a few times


@dataclass(frozen=True, slots=True)
class Limits:
    """What a text may cost before it is parsed.

    size: octets.
    depth: nested arrays and objects, the outermost counted.
    tokens: values and member names; an empty array or object counts twice.
    digits: digits of one number, fraction and exponent included.
    """

    size: int = 2 << 20
    depth: int = 64
    tokens: int = 50_000
    digits: int = 64


DEFAULT: Final = Limits()

# Every byte a number may hold becomes "0", so that one substring search finds a long run of them.
_NUMERIC: Final = bytes.maketrans(b"123456789.eE+-", b"0" * 14)
_NOT_DIGITS: Final = b".eE+-"
_NUMBER: Final = re.compile(rb"[0-9.eE+\-]+")
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_WHERE: Final = re.compile(r"\(byte (\d{1,12})\)")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


def decode(data: bytes, *, limits: Limits = DEFAULT) -> Json:
    """Decode one JSON text.

    Raises:
        PayloadTooLarge: more octets than `limits.size`.
        MalformedMessage: anything else that is wrong with it.
    """
    if len(data) > limits.size:
        raise PayloadTooLarge(f"more than {limits.size} octets of JSON")
    structure = None
    if not _is_surely_small(data, limits):
        structure = _structure(data, limits)
        _check_caps(structure, limits)
    # `from None` throughout: the parser's own exceptions carry the input.
    try:
        value = _decode(data)
    except msgspec.ValidationError:
        raise MalformedMessage("JSON: a number is out of range") from None
    except msgspec.DecodeError as error:
        where = _WHERE.search(str(error))
        raise MalformedMessage("JSON: malformed" + (f" near byte {where[1]}" if where else " or cut short")) from None
    except UnicodeDecodeError:
        raise MalformedMessage("JSON: a string is not valid UTF-8") from None
    except RecursionError:
        raise MalformedMessage("JSON: nested too deeply") from None
    # Of a repeated member the parser keeps the last: the value has a member less than the text has colons. A small
    # text is written again, which is the quickest way to count (a report of 2000 integers is walked in Python else).
    if structure is not None:
        repeats = structure.count(b":") != _count_members(value)
    else:
        colons = data.count(b":")
        repeats = colons > 0 and colons != _encode(value).count(b":")
    if repeats:
        raise MalformedMessage("JSON: an object repeats a member name")
    return value


def encode(value: Json) -> bytes:
    """Compact UTF-8 JSON; members in the order given. Subclasses of str and int (enumerations) go out as their value.

    Raises:
        ServerFault: not a JSON value: another type, a member name that is no string, NaN or an infinity, a lone
            surrogate, or deeper than `ENCODE_DEPTH`. Nothing that came through `decode` can cause it, depth aside.
    """
    # The encoder turns NaN, octets, tuples and names that are numbers into something else: then it reads differently.
    try:
        text = _encode(value)
        is_same = _decode(text) == value
    except UnicodeEncodeError:
        raise ServerFault("a lone surrogate is not encodable") from None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        raise ServerFault("not encodable as JSON") from None
    if not is_same:
        raise ServerFault("not a JSON value: it would read differently")
    if text.count(b"[") + text.count(b"{") > ENCODE_DEPTH and not _is_nested_within(
        _structure(text, Limits(tokens=len(text))), ENCODE_DEPTH
    ):
        raise ServerFault(f"JSON deeper than {ENCODE_DEPTH}")
    return text


def encode_around(value: Json) -> bytes:
    """The same for a document of our own making, in which `Encoded` stands for a part that `encode` wrote before.

    Nothing is checked: the rest of it has to be JSON by construction.
    """
    return _encode(value)


def canonical(value: Json) -> bytes:
    """The canonical form of RFC 8785.

    Raises:
        MalformedMessage: an integer beyond ±(2^53 - 1), for which RFC 8785 has no exact form.
        ServerFault: as in `encode`.
    """
    try:
        if type(value) is dict and _is_plain(value, ENCODE_DEPTH):
            return _encode_sorted(value)
        encode(value)
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        raise MalformedMessage("JSON: an integer has no canonical form") from None
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        raise ServerFault("a lone surrogate is not encodable") from None


def _is_surely_small(data: bytes, limits: Limits) -> bool:
    """Whether counting bytes wherever they stand, in strings too, already shows that every cap holds.

    It also asks that no colon is written as an escape: then strings hold the same colons when written again.
    """
    size = len(data)
    return (
        size < limits.tokens  # each token but one has an octet of its own
        and (size <= limits.depth or data.count(b"[") + data.count(b"{") <= limits.depth)
        and (size <= limits.digits or b"0" * (limits.digits + 1) not in data.translate(_NUMERIC))
        and not (b"\\" in data and b"\\u003" in data)  # the search for one byte is much the faster
    )


def _structure(data: bytes, limits: Limits) -> bytes:
    """`data` without its strings and their quotes.

    Exact up to the first byte that is no JSON, which is also as far as the parser reads. In a run of backslashes
    pairs are consumed from the left, so what is left before a quote escapes it.
    """
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    most = 2 * limits.tokens + 1  # pieces, if every token were a string
    pieces = data.split(b'"', most)
    if len(pieces) > most:
        raise MalformedMessage(f"JSON: more than {limits.tokens} tokens")
    return b"".join(pieces[::2])


def _check_caps(structure: bytes, limits: Limits) -> None:
    openings = structure.count(b"[") + structure.count(b"{")
    if 1 + openings + structure.count(b",") + structure.count(b":") > limits.tokens:
        raise MalformedMessage(f"JSON: more than {limits.tokens} tokens")
    if openings > limits.depth and not _is_nested_within(structure, limits.depth):
        raise MalformedMessage(f"JSON: brackets do not balance or nest deeper than {limits.depth}")
    if b"0" * (limits.digits + 1) in structure.translate(_NUMERIC):
        for literal in _NUMBER.finditer(structure):
            if len(literal[0].translate(None, _NOT_DIGITS)) > limits.digits:
                raise MalformedMessage(f"JSON: a number has more than {limits.digits} digits")


def _count_members(value: Json) -> int:
    if type(value) is dict:
        return len(value) + sum(_count_members(member) for member in value.values())
    if type(value) is list:
        return sum(_count_members(element) for element in value if type(element) in (dict, list))
    return 0


def _is_nested_within(structure: bytes, depth: int) -> bool:
    """Whether brackets balance within `depth`. Each pass removes exactly the innermost level."""
    brackets = structure.translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _is_plain(members: dict[Any, object], depth: int) -> bool:
    """Objects and strings only, ASCII names: there, sorted compact JSON *is* RFC 8785 (runtime data is such)."""
    for name, value in members.items():
        if type(name) is not str or not name.isascii():
            return False
        if type(value) is not str and not (type(value) is dict and depth > 1 and _is_plain(value, depth - 1)):
            return False
    return True
