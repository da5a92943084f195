"""YAML from strangers: what is not taken, and what it costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.errors import MalformedMessage
from kbs.initdata import yaml_text

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n".encode() for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "bomb": (BOMB, "aliases"),
    "itself": (b"&a [*a]", "aliases"),
    "merge": (b"a: &a {x: 1}\nb:\n  <<: *a\n", "aliases"),
    "merge of a mapping": (b"b:\n  <<: {x: 1}\n", "not a text"),
    "twice": (b"a: 1\nb: 2\na: 3\n", "stands twice, again in line 3"),
    "twice in quotes": (b"a: 1\n'a': 3\n", "stands twice"),
    "number": (b"1: a\n", "not a text"),
    "word for true": (b"yes: a\n", "not a text"),
    "sequence": (b"? [a]\n: b\n", "not a text"),
    "deep": (b"[" * 500 + b"]" * 500, "deeper"),
    "deep mapping": (b"{a: " * 500, "deeper"),
    "deep block": (b"".join(b" " * n + b"a:\n" for n in range(100)), "deeper"),
    "wide": (b"[" + b"x," * 25_000 + b"]", "more than 20000"),
    "long": (b"#" * (3 << 20), "more than"),
    "many": (b"--- a\n" * 200, "documents"),
    "object": (b"!!python/object/apply:os.system ['true']", "malformed"),
    "tag": (b"!x 1", "malformed"),
    "date": (b"a: 2026-13-45", "malformed"),
    "binary": (b"\xff\xfe", "UTF-8"),
    "nul": (b"a: \0", "malformed"),
    "control": (b"a: \x07", "malformed"),
    "open": (b'a: "x', "malformed"),
    "tab": (b"a:\n\tb: 1", "malformed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_taken(name: str) -> None:
    raw, said = WRONG[name]
    with pytest.raises(MalformedMessage, match=said):
        yaml_text.documents(raw)


def test_what_is_taken() -> None:
    assert yaml_text.documents(b"") == []
    assert yaml_text.documents(b"a: {b: [1, x, null, true]}\n---\n- |\n  two\n  lines\n") == [
        {"a": {"b": [1, "x", None, True]}},
        ["two\nlines\n"],
    ]
    assert yaml_text.documents(b'{"a": "\xc3\xbc"}') == [{"a": "ü"}]


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.text(alphabet="ab:-[]{}&*!|>'\"#% \n\t?,.0123", max_size=60).map(str.encode))
)
def test_nothing_else_is_raised(raw: bytes) -> None:
    try:
        yaml_text.documents(raw)
    except MalformedMessage:
        return
