"""Bounded CBOR: what is taken, and everything that is not."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.errors import StatementUnacceptable
from rvps.manifests.cbor import MAX_DEPTH, decode

LIMIT = 64 * 1024


def h(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def read(data: bytes, *tags: int) -> Any:
    return decode(data, what="test", tags=frozenset(tags), max_size=LIMIT)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("3b 7fff ffff ffff ffff", -(2**63)),
        ("63 e2 82 ac", "€"),
        ("f6", None),
        ("82 01 a1 01 41 61", [1, {1: b"a"}]),
    ],
)
def test_plain_items(data: str, value: Any) -> None:
    assert read(h(data)) == value


@pytest.mark.parametrize("tag", [1, 37, 501, 560])
def test_an_allowed_tag_means_nothing_here(tag: int) -> None:
    found = read(cbor2.dumps(cbor2.CBORTag(tag, b"0123456789abcdef")), tag)
    assert found == cbor2.CBORTag(tag, b"0123456789abcdef")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="nothing"),
        pytest.param("00 00", id="something behind it"),
        pytest.param("a2 01 00 01 01", id="a key twice"),
        pytest.param("a2 01 00 f5 01", id="a key that is true"),
        pytest.param("a1 80 00", id="a key that is an array"),
        pytest.param("a1 41 61 00", id="a key of bytes"),
        pytest.param("c2 49 01 0000 0000 0000 0000", id="bignum"),
        pytest.param("c3 49 01 0000 0000 0000 0000", id="negative bignum"),
        pytest.param("d8 1c 80", id="tag 28"),
        pytest.param("d8 1c 81 d8 1d 00", id="tag 29, a cycle"),
        pytest.param("d8 23 61 2e", id="tag 35"),
        pytest.param("9f 01 ff", id="array of indefinite length"),
        pytest.param("bf 01 02 ff", id="map of indefinite length"),
        pytest.param("5f 41 61 ff", id="bytes of indefinite length"),
        pytest.param("7f 61 61 ff", id="text of indefinite length"),
        pytest.param("fb 3ff0 0000 0000 0000", id="floating point"),
        pytest.param("f7", id="undefined"),
        pytest.param("61 ff", id="not UTF-8"),
        pytest.param("9b 7fff ffff ffff ffff 00", id="an array longer than memory"),
        pytest.param("5b 7fff ffff ffff ffff 00", id="a string longer than memory"),
    ],
)
def test_refused(data: str) -> None:
    with pytest.raises(StatementUnacceptable, match=r"^test: "):
        read(h(data))


def test_depth_is_bounded() -> None:
    assert read(b"\x81" * (MAX_DEPTH - 1) + b"\x00")
    for depth in (MAX_DEPTH + 1, 10_000):
        with pytest.raises(StatementUnacceptable, match="deep"):
            read(b"\x81" * depth + b"\x00")


def test_fifty_megabytes_are_refused_before_they_are_read() -> None:
    data = bytes(50 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(StatementUnacceptable, match="more than 65536 bytes"):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_never_anything_but_a_value_or_a_refusal(data: bytes) -> None:
    try:
        read(data, 18, 37, 501)
    except StatementUnacceptable:
        return
