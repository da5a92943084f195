"""The grammar of resource names, and the traversal corpus against it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import NameNotAllowed
from kbs.protocol.resource_path import ResourcePath, parse


def test_resource_path_table(vectors: Path) -> None:
    rows = json.loads((vectors / "kbs/table-vectors.json").read_text())["resource_path (1.4)"]
    assert len(rows) > 20
    for row in rows:
        segments = row["path"].split("/")
        if row["accepted"]:
            assert str(parse(segments)) == row["path"]
        else:
            with pytest.raises(NameNotAllowed):
                parse(segments)


def test_parts_keep_their_places() -> None:
    assert parse(("default", "key", "1")) == ResourcePath("default", "key", "1")


@pytest.mark.parametrize("place", range(3))
def test_a_segment_has_1_to_255_octets(place: int) -> None:
    segments = ["a", "b", "c"]
    segments[place] = "x" * 255
    assert str(parse(segments)) == "/".join(segments)
    for bad in ("x" * 256, "x" * 4096, ""):
        segments[place] = bad
        with pytest.raises(NameNotAllowed):
            parse(segments)


TRAVERSAL = [
    ".", "..", "...", ".x", "/etc", "a/b", "a\\b", "..\\x", "a\0b", "\0", "a\n", "\na", "a\r", "a\t", " a", "a ",
    "%2e%2e", "%2F", "a%00", "a+b", "a;b", "a:b", "a*", "a?", "a#b", "~", "$HOME", "`id`", "a|b", "a'b", 'a"b', "a,b",
    "ü", "\uff41", "\u2024\u2024", "\u2215", "\ufffd", "\u200b", "a\u0301", "\x7f", "\x80", "\xc0\xae",
]  # fmt: skip


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("name", TRAVERSAL)
def test_names_cannot_escape(name: str, place: int) -> None:
    segments = ["a", "b", "c"]
    segments[place] = name
    with pytest.raises(NameNotAllowed) as refusal:
        parse(segments)
    assert "1 to 255" in str(refusal.value)


@given(st.lists(st.text(max_size=4) | st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", fullmatch=True), max_size=5))
def test_what_parses_matches_the_whole_grammar(segments: list[str]) -> None:
    try:
        text = str(parse(segments))
    except NameNotAllowed:
        text = "/".join(segments)  # of two segments, one may hold a slash itself
        assert len(segments) != 3 or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*/[\w-][\w.-]*", text, re.ASCII)
    else:
        assert re.fullmatch(r"([\w-][\w.-]*/){2}[\w-][\w.-]*", text, re.ASCII)
        assert ".." not in text.split("/")
