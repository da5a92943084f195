"""One reading only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.strict_json import MAX_DEPTH, NotStrictJson, decode, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_encoding_is_read_back(value: Any) -> None:
    raw = encode(value)
    assert decode(raw, max_bytes=1 << 20) == value
    assert encode(decode(raw, max_bytes=1 << 20)) == raw


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = decode(raw, max_bytes=100)
    except NotStrictJson:
        return
    assert len(raw) <= 100
    assert json.loads(raw) == value


@pytest.mark.parametrize("containers", [MAX_DEPTH, MAX_DEPTH + 1])
@pytest.mark.parametrize(("left", "inmost", "right"), [("[", "1", "]"), ("[", "", "]"), ('{"a":', "1", "}")])
def test_depth_is_counted_in_containers(containers: int, left: str, inmost: str, right: str) -> None:
    raw = (left * containers + inmost + right * containers).encode()
    if containers == MAX_DEPTH:
        assert decode(raw, max_bytes=1000) is not None
    else:
        with pytest.raises(NotStrictJson, match="nested deeper than 64"):
            decode(raw, max_bytes=1000)


def test_size_is_checked_before_anything_else() -> None:
    assert decode(b"[1]", max_bytes=3) == [1]
    with pytest.raises(NotStrictJson, match="more than 2 bytes"):
        decode(b"\xff\xff\xff", max_bytes=2)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"{} x",
        b"[1,]",
        b"{'a':1}",
        b'{"a":{"b":1,"b":1}}',
        b"[Infinity]",
        b"[-Infinity]",
        b"[-1e999]",
        b"[01]",
        b'["\\udfff"]',
        b'{"\\ud800":1}',
        b"[0." + b"1" * 63 + b"]",
        b'["\x01"]',
    ],
)
def test_what_readers_disagree_about_is_refused(raw: bytes) -> None:
    with pytest.raises(NotStrictJson):
        decode(raw, max_bytes=1000)


def test_numbers_keep_their_kind() -> None:
    assert encode(decode(b'{"b":1.0,"a":1,"c":true}', max_bytes=100)) == b'{"a":1,"b":1.0,"c":true}'
