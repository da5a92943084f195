"""How events become lines: one line each, bounded, escaped, and never a secret."""

from __future__ import annotations

import json
from collections import UserList
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.audit.events import Event, EvidenceRefused, LogRepaired, ReleaseDenied
from kbs.audit.lines import MAX_LINE, NO_PREV, encode_event, encode_line, find, line_digest, prev_of, records, timestamp
from kbs.secret import Secret

ID = "0" * 31 + "1"
AT = datetime(2026, 6, 15, 12, 0, 0, 5, tzinfo=UTC)
TIME = timestamp(AT)


class _Open(Event, frozen=True, kw_only=True):
    """An event with whatever members a test wants."""

    kind: ClassVar[str] = "test"
    extra: dict[str, Any]

    def members(self) -> dict[str, Any]:
        return {"kind": self.kind, "decision": self.decision, **self.extra}


def _open(**extra: Any) -> Event:
    return _Open(decision=ID, extra=extra)


def line_of(event: Event) -> bytes:
    return encode_line(0, TIME, encode_event(event), NO_PREV)


def test_a_line_is_one_json_object_in_a_fixed_order() -> None:
    line = line_of(EvidenceRefused(decision=ID, reason="binding_mismatch", detail="report data"))
    assert line == (
        b'{"n":0,"time":"2026-06-15T12:00:00.000005Z","kind":"evidence.refused","decision":"' + ID.encode() + b'",'
        b'"reason":"binding_mismatch","detail":"report data","prev":"' + b"0" * 64 + b'"}'
    )


def test_absent_and_empty_members_are_left_out_and_zero_is_not() -> None:
    event = ReleaseDenied(decision=ID, plugin="", path="a", reason="policy", detail="", scopes={}, findings=())
    assert event.members() == {"kind": "release.denied", "decision": ID, "path": "a", "reason": "policy"}
    zero = LogRepaired(decision=ID, dropped_bytes=0)
    assert list(zero.members().items()) == [("kind", "audit.repaired"), ("decision", ID), ("dropped_bytes", 0)]


def test_an_event_cannot_be_changed() -> None:
    event = LogRepaired(decision=ID, dropped_bytes=0)
    with pytest.raises(AttributeError):
        event.dropped_bytes = 1  # type: ignore[misc]


@given(st.text(max_size=40))
def test_any_text_stays_on_one_printable_line(text: str) -> None:
    line = line_of(_open(detail=text))
    assert all(0x20 <= octet < 0x7F for octet in line)
    assert json.loads(line)["detail"] == text
    assert prev_of(line) == NO_PREV


@pytest.mark.parametrize("text", ["\r\n", "\x1b[31m", "\x00", "\x7f", "\x85", "\u2028", "\ud800", '","prev":"'])
def test_control_characters_are_escaped(text: str) -> None:
    line = line_of(_open(detail=text))
    assert all(0x20 <= octet < 0x7F for octet in line)
    assert json.loads(line)["detail"] == text


class _Colour(Enum):
    RED = "red"


class _Word(StrEnum):
    YES = "yes"


@dataclass
class _Data:
    text: str


def test_plain_containers_of_other_types_are_taken() -> None:
    event = _open(a=MappingProxyType({"x": (1, 2)}), b=UserList([True]), c=_Colour.RED, d=_Word.YES)
    record = json.loads(line_of(event))
    assert (record["a"], record["b"], record["c"], record["d"]) == ({"x": [1, 2]}, [True], "red", "yes")


_HOSTILE = st.text(
    st.one_of(
        st.sampled_from('\x00\x08\x1f\x7f\x80\u2028\ud800\U0001f600"\\/<\r\n\t'), st.characters(exclude_categories=())
    ),
    max_size=8,
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _HOSTILE
    | st.just(_Word.YES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_HOSTILE, inner, max_size=3)
        | st.dictionaries(_HOSTILE, inner, max_size=3).map(MappingProxyType)
    ),
    max_leaves=12,
)


def _plainly(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plainly(member) for name, member in value.items()}
    return [_plainly(member) for member in value] if isinstance(value, (list, tuple)) else value


@given(_JSON)
def test_what_the_quick_encoder_writes_is_what_the_standard_one_would(value: object) -> None:
    body = encode_event(_open(value=value))
    whole = {"kind": "test", "decision": ID, "value": _plainly(value)}
    assert b"{" + body + b"}" == json.dumps(whole, separators=(",", ":")).encode().replace(b"\x7f", b"\\u007f")


def test_depth_and_digits_beyond_the_ordinary() -> None:
    deep: object = "é"
    for _ in range(50):
        deep = [{"in": deep}]
    assert json.loads(line_of(_open(value=deep)))["value"] == deep
    assert json.loads(line_of(_open(value=10**500)))["value"] == 10**500
    with pytest.raises(TypeError):
        encode_event(_open(value=10**5000))


@pytest.mark.parametrize(
    "value",
    [
        Secret(b"canary"),
        datetime(2026, 1, 1, tzinfo=UTC),
        timedelta(1),
        Decimal(1),
        UUID(int=0),
        frozenset({"canary"}),
        _Data("canary"),
        ({"deep": (b"canary",)},),
        b"canary",
        bytearray(b"canary"),
        memoryview(b"canary"),
        {"deep": [Secret(b"canary")]},
        [{"deep": b"canary"}],
        {b"canary": 1},
        {"canary"},
        object(),
        float("nan"),
        float("inf"),
    ],
)
def test_secrets_bytes_and_what_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        encode_event(_open(value=value))
    assert "canary" not in str(caught.value)


def test_a_cycle_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError):
        encode_event(_open(value=loop))


@pytest.mark.parametrize("name", ["n", "time", "prev"])
def test_an_event_cannot_take_the_names_of_the_line(name: str) -> None:
    with pytest.raises(TypeError, match="named"):
        encode_event(_open(**{name: "x"}))


def test_an_event_that_is_too_long_loses_its_longest_members_only() -> None:
    findings = [{"claim": "x" * 100} for _ in range(1000)]
    detail = "beginning " + "é" * 100_000
    line = line_of(
        ReleaseDenied(
            decision=ID,
            plugin="resource",
            path="a/b/c",
            reason="policy",
            detail=detail,
            findings=findings,
            key="k" * 900,
        )
    )
    assert len(line) <= MAX_LINE
    record = json.loads(line)
    whole = json.dumps(findings, separators=(",", ":")).encode()
    assert record["findings"] == {"cut_octets": len(whole), "sha256": sha256(whole).hexdigest()}
    text = json.dumps(detail).encode()
    assert record["detail"].startswith("beginning é")
    assert record["detail"].endswith(f"[cut: {len(text)} octets, SHA-256 {sha256(text).hexdigest()}]")
    assert (record["path"], record["key"], record["decision"]) == ("a/b/c", "k" * 900, ID)


@pytest.mark.parametrize("size", range(MAX_LINE - 400, MAX_LINE + 10, 7))
def test_no_line_is_over_the_bound(size: int) -> None:
    line = encode_line(10**18, TIME, encode_event(_open(detail="x" * size)), NO_PREV)
    assert len(line) <= MAX_LINE


@pytest.mark.parametrize(
    "offset", [None, timedelta(hours=2), timedelta(hours=-1), timedelta(seconds=1), timedelta(hours=1, microseconds=1)]
)
def test_time_is_utc(offset: timedelta | None) -> None:
    at = AT.replace(tzinfo=None) if offset is None else AT.astimezone(timezone(offset))
    with pytest.raises(ValueError, match="UTC"):
        timestamp(at)


def test_any_zone_without_an_offset_is_utc() -> None:
    whole = AT.replace(microsecond=0)
    assert timestamp(AT) == timestamp(AT.astimezone(timezone(timedelta(0), "GMT"))) == b"2026-06-15T12:00:00.000005Z"
    assert timestamp(whole) == b"2026-06-15T12:00:00.000000Z"


@pytest.mark.parametrize("line", [b"", b"{}", b'{"n":0}', b'"prev":"' + b"0" * 64 + b'"}', b'{"n":0,"prev":"00"}'])
def test_a_line_without_prev_has_none(line: bytes) -> None:
    assert prev_of(line) is None


def test_records_and_find_read_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written = [encode_line(number, TIME, encode_event(_open(count=number)), NO_PREV) for number in range(5)]
    other = written[2].replace(ID.encode(), b"f" * 32)
    quoted = encode_line(9, TIME, encode_event(_open(detail=f'"decision":"{"f" * 32}"')), NO_PREV)
    path.write_bytes(b"\n".join([*written[:2], other, *written[3:], quoted]) + b"\n" + b'{"n":5,"half')
    assert [record["n"] for record in records(path)] == [0, 1, 2, 3, 4, 9]
    assert [record["n"] for record in records(path, 3)] == [3, 4, 9]
    assert [record["n"] for record in find(path, "f" * 32)] == [2]
    assert [record["n"] for record in find(path, ID)] == [0, 1, 3, 4, 9]
    assert find(path, "no such") == []
    path.write_bytes(b"[]\n")
    with pytest.raises(ValueError, match="no object"):
        list(records(path))
    assert line_digest(b"") == sha256(b"").hexdigest()
