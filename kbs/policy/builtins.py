"""The functions that OPA's WebAssembly runtime leaves to its host. Pure, bounded, few.

A function that fails on its arguments is undefined, as in OPA; what is outside the part offered here ends the
evaluation instead, so that no decision rests on a difference between engines. Tested with OPA's own cases.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Final

from kbs.policy import go_text, rego_values
from kbs.policy.rego_values import RegoSet, ValueRefused, comparable

MAX_CALLS: Final = 2000  # per evaluation; one costs about 50 µs and no fuel
MAX_ARGUMENTS: Final = 4 << 20  # bytes per evaluation, as OPA prints them
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT64: Final = range(-(2**63), 2**63)


class Undefined(Exception):
    """The function has no value for these arguments."""


class LimitPassed(Exception):
    """The evaluation must end: too many calls, too much data, or a form that is not offered."""


class Call:
    """What host functions may know of one evaluation: the frozen present moment, and how much was asked."""

    __slots__ = ("_now", "_now_ns", "_room", "_turns", "aborted")

    def __init__(self, now_ns: Callable[[], int] | None) -> None:
        self._now_ns = now_ns
        self._now: int | None = None
        self._turns = MAX_CALLS
        self._room = MAX_ARGUMENTS
        self.aborted = ""

    def now(self) -> int:
        """Nanoseconds since 1970, the same all through one evaluation."""
        if self._now is None:
            if self._now_ns is None:
                raise LimitPassed("the time was asked where no clock is")
            self._now = self._now_ns()
        return self._now

    def count(self) -> None:
        """Count one call."""
        self._turns -= 1
        if self._turns < 0:
            raise LimitPassed("too many calls of host functions")

    def take(self, size: int) -> None:
        """Count bytes of arguments or answers."""
        self._room -= size
        if self._room < 0:
            raise LimitPassed("too much data for host functions")


HostFunction = Callable[..., Any]


def decode(raw: bytes, call: Call) -> Any:
    """Read one argument that the runtime printed."""
    call.take(len(raw))
    try:
        return rego_values.decode(raw.decode("utf-8"))
    except ValueRefused as err:
        raise LimitPassed(str(err)) from err
    except UnicodeDecodeError as err:
        raise LimitPassed("a string that is not UTF-8") from err


def encode(value: Any, call: Call) -> bytes:
    """Print one answer for the runtime."""
    answer = rego_values.encode(value)
    call.take(len(answer))
    return answer


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Undefined
    return value


def _bytes(value: Any) -> bytes:
    return _text(value).encode("utf-8")


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, RegoSet):
        value = value.elements
    if not isinstance(value, (list, tuple)):
        raise Undefined
    return [_text(item) for item in value]


# --- time -------------------------------------------------------------------------------------------------------------

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,30}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _parse_rfc3339_ns(_call: Call, text: Any) -> int:
    found = _RFC3339.fullmatch(_text(text))
    if found is None:
        raise Undefined
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    sign, hours, minutes = found[8], int(found[9] or 0), int(found[10] or 0)
    if hours > 23 or minutes > 59:
        raise Undefined
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
        since = moment - _EPOCH
    except (ValueError, OverflowError) as err:
        raise Undefined from err
    nanoseconds = int((found[7] or "0").ljust(9, "0")[:9])
    return _int64((since.days * 86400 + since.seconds) * 10**9 + nanoseconds)


def _int64(value: int) -> int:
    if value not in _INT64:
        raise Undefined
    return value


def _parse_duration_ns(_call: Call, text: Any) -> int:
    if set(_text(text)) & set("dwy"):
        raise LimitPassed("durations of days, weeks and years are not offered")
    value = go_text.parse_duration(text)
    if value is None:
        raise Undefined
    return _int64(value)


def _moment(when: Any) -> datetime:
    zone: Any = ""
    if isinstance(when, list):
        if not when:
            raise Undefined
        when, zone = when[0], when[1] if len(when) > 1 else ""
    if not isinstance(when, int) or isinstance(when, bool) or not isinstance(zone, str) or when not in _INT64:
        raise Undefined
    if zone not in ("", "UTC"):
        raise LimitPassed("time zones other than UTC are not offered")
    return _EPOCH + timedelta(seconds=when // 10**9)


def _date(_call: Call, when: Any) -> list[int]:
    moment = _moment(when)
    return [moment.year, moment.month, moment.day]


def _clock(_call: Call, when: Any) -> list[int]:
    moment = _moment(when)
    return [moment.hour, moment.minute, moment.second]


# --- versions, identifiers --------------------------------------------------------------------------------------------

_SEMVER: Final = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)


def _version(text: Any) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """Sorts as semver.org 2.0.0 item 11 says: a pre-release before its release, numbers before words."""
    # A pattern of unbounded digits and identifiers is fed nothing long.
    found = _SEMVER.fullmatch(_text(text)) if len(_text(text)) <= 256 else None
    if found is None or any(int(found[part]) not in _INT64 for part in (1, 2, 3)):
        raise Undefined
    identifiers = found[4].split(".") if found[4] else []
    return (
        (int(found[1]), int(found[2]), int(found[3])),
        not identifiers,
        tuple((not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in identifiers),
    )


def _semver_compare(_call: Call, left: Any, right: Any) -> int:
    first, second = _version(left), _version(right)
    return (first > second) - (first < second)


def _semver_is_valid(_call: Call, text: Any) -> bool:
    try:
        _version(text)
    except Undefined:
        return False
    return True


def _uuid_parse(_call: Call, text: Any) -> dict[str, Any]:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", _text(text)):
        raise LimitPassed("only the plain form of a UUID is offered")
    parsed = uuid.UUID(text)
    version = int(parsed.hex[12], 16)
    if version in (1, 2):
        raise LimitPassed("UUIDs of versions 1 and 2 are not offered")
    if parsed.variant != uuid.RFC_4122:
        raise LimitPassed("UUIDs of other variants than RFC 4122 are not offered")
    return {"variant": "RFC4122", "version": version}


# --- objects and strings ----------------------------------------------------------------------------------------------


def _subset(_call: Call, larger: Any, smaller: Any) -> bool:
    answer = _subset_of(larger, smaller)
    if answer is None and isinstance(larger, list) and isinstance(smaller, RegoSet):
        have = {comparable(item) for item in larger}
        return bool(larger) and all(comparable(item) in have for item in smaller.elements)
    if answer is None:
        raise Undefined
    return answer


def _subset_of(larger: Any, smaller: Any) -> bool | None:
    """Whether `smaller` is part of `larger`; None when they are of different or other types."""
    if isinstance(larger, dict) and isinstance(smaller, dict):
        return all(key in larger and _member_subset(larger[key], value) for key, value in smaller.items())
    if isinstance(larger, RegoSet) and isinstance(smaller, RegoSet):
        have = {comparable(item) for item in larger.elements}
        return all(comparable(item) in have for item in smaller.elements)
    if isinstance(larger, list) and isinstance(smaller, list):
        if len(larger) * len(smaller) > 1_000_000:
            raise LimitPassed("arrays too long for object.subset")
        whole, part = [comparable(item) for item in larger], [comparable(item) for item in smaller]
        return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))
    return None


def _member_subset(larger: Any, smaller: Any) -> bool:
    answer = _subset_of(larger, smaller)
    return bool(comparable(larger) == comparable(smaller)) if answer is None else answer


def _any_affix(match: Callable[[str, tuple[str, ...]], bool]) -> HostFunction:
    def function(_call: Call, search: Any, affixes: Any) -> bool:
        words, ends = _texts(search), tuple(_texts(affixes))
        if len(words) * len(ends) > 1_000_000:
            raise LimitPassed("collections too long for a prefix or suffix match")
        return any(match(word, ends) for word in words)

    return function


def _count(_call: Call, text: Any, part: Any) -> int:
    return _text(text).count(_text(part))


def _sprintf(_call: Call, form: Any, values: Any) -> str:
    if not isinstance(values, list):
        raise Undefined
    try:
        return go_text.sprintf(_text(form), values)
    except go_text.FormNotOffered as err:
        raise LimitPassed(str(err)) from err


def _pattern(function: Callable[..., Any]) -> HostFunction:
    def call(_call: Call, *arguments: Any) -> Any:
        try:
            answer = function(*arguments)
        except go_text.FormNotOffered as err:
            raise LimitPassed(str(err)) from err
        if answer is None:
            raise Undefined
        return answer

    return call


# --- encodings and digests --------------------------------------------------------------------------------------------


def _hex_decode(_call: Call, text: Any) -> str:
    if not re.fullmatch(r"([0-9A-Fa-f]{2})*", _text(text)):
        raise Undefined
    try:
        return bytes.fromhex(text).decode("utf-8")
    except UnicodeDecodeError as err:
        raise LimitPassed("hex.decode gives no UTF-8 text") from err


def _base64url_no_pad(_call: Call, text: Any) -> str:
    return base64.urlsafe_b64encode(_bytes(text)).rstrip(b"=").decode("ascii")


def _digest(name: str) -> HostFunction:
    return lambda _call, text: hashlib.new(name, _bytes(text), usedforsecurity=False).hexdigest()


def _mac(name: str) -> HostFunction:
    return lambda _call, text, key: hmac.new(_bytes(key), _bytes(text), name).hexdigest()


def _mac_equal(_call: Call, left: Any, right: Any) -> bool:
    return hmac.compare_digest(_bytes(left), _bytes(right))


HOST_FUNCTIONS: Final[Mapping[str, HostFunction]] = MappingProxyType(
    {
        "base64url.encode_no_pad": _base64url_no_pad,
        "crypto.hmac.equal": _mac_equal,
        "crypto.hmac.md5": _mac("md5"),
        "crypto.hmac.sha1": _mac("sha1"),
        "crypto.hmac.sha256": _mac("sha256"),
        "crypto.hmac.sha512": _mac("sha512"),
        "crypto.md5": _digest("md5"),
        "crypto.sha1": _digest("sha1"),
        "crypto.sha256": _digest("sha256"),
        "hex.decode": _hex_decode,
        "hex.encode": lambda _call, text: _bytes(text).hex(),
        "object.subset": _subset,
        "regex.find_n": _pattern(go_text.regex_find),
        "regex.replace": _pattern(go_text.regex_replace),
        "regex.split": _pattern(go_text.regex_split),
        "semver.compare": _semver_compare,
        "semver.is_valid": _semver_is_valid,
        "sprintf": _sprintf,
        "strings.any_prefix_match": _any_affix(str.startswith),
        "strings.any_suffix_match": _any_affix(str.endswith),
        "strings.count": _count,
        "time.clock": _clock,
        "time.date": _date,
        "time.now_ns": lambda call: call.now(),
        "time.parse_duration_ns": _parse_duration_ns,
        "time.parse_rfc3339_ns": _parse_rfc3339_ns,
        "time.weekday": lambda _call, when: _WEEKDAYS[_moment(when).weekday()],
        "uuid.parse": _uuid_parse,
    }
)
