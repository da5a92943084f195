"""One text per value, and no other."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import MalformedMessage
from kbs.protocol.base64url import decode, encode


@given(st.binary(max_size=70))
def test_round_trip(raw: bytes) -> None:
    assert encode(raw) == base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert encode(memoryview(raw)) == encode(raw)
    assert decode(encode(raw).decode()) == raw


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AA==",
        "AA=",
        "AB",
        "AAB",
        "A A",
        "AA\n",
        "\nAA",
        "AA.",
        "+/+/",
        "AAAA=",
        "=",
        "AAAAA",
        "AAé",
        "AA\ud800",
        "\uff21\uff21",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        decode(text)


@given(st.text(max_size=40) | st.text(st.sampled_from("AQgw-_+/= \n"), max_size=12))
def test_whatever_decodes_is_the_one_spelling(text: str) -> None:
    try:
        raw = decode(text)
    except MalformedMessage:
        return
    assert encode(raw).decode() == text
