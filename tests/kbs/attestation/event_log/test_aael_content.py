"""Content of the agent's events: looked at before it is decoded, and yet what the strict decoder says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs import strict_json
from kbs.attestation.event_log import aael
from kbs.errors import MalformedMessage

LIMIT = 1 << 63


def content(text: str) -> Any:
    return aael.parse(f"domain operation {text}").content


def decoded(text: str) -> Any:
    """What the strict decoder makes of it, unless it holds an integer that not every reader can read."""
    try:
        value = strict_json.decode(text.encode())
    except MalformedMessage:
        return text
    return text if is_wide(value) else value


def is_wide(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(is_wide, value.values() if isinstance(value, dict) else value))
    return type(value) is int and not -LIMIT <= value < LIMIT


def same(left: Any, right: Any) -> bool:
    return json.dumps(left) == json.dumps(right)


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "01", "-", "1.", "1.5", "1e3", "1E+3", "1e999", "-1.5e-7", ".5", "+1", "1 2", "12ab", "0x10"),
        *("true", "false", "null", "True", "nul", "nulls", "NaN", "Infinity", "-Infinity"),
        *(
            '""',
            '"a"',
            '"',
            '"a',
            'a"',
            '"a" ',
            ' "a"',
            '"\\u003a"',
            "{}",
            "{",
            "}",
            "[]",
            "[",
            "{]",
            "[}",
            " {} ",
            "[1,]",
        ),
        *('{"a":1}', '{"a":1,"a":2}', '{"a":":"}', '{"a":[1,2,{"b":null}]}', '{"a":1}x', "[1]2]"),
        *(str(LIMIT - 1), str(LIMIT), str(-LIMIT), str(-LIMIT - 1), f"[{LIMIT}]", f'{{"a":[{LIMIT}]}}', f'"{LIMIT}"'),
        *("9" * 18, "9" * 19, "9" * 64, "9" * 65, "sha256:" + "9" * 30, "٣"),
    ],
)
def test_as_the_strict_decoder(text: str) -> None:
    assert same(content(text), decoded(text))


PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PRINTABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PRINTABLE, inner, max_size=3),
    max_leaves=6,
)


@given(text=PRINTABLE | st.text('0123456789.eE+-{}[]",: tfn', max_size=12) | VALUES.map(json.dumps))
def test_any_text(text: str) -> None:
    assert same(content(text) if text else text, decoded(text))
