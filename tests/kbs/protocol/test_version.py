"""Which versions are spoken, and what a guest is told otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import UnsupportedVersion
from kbs.protocol.version import ProtocolVersion, negotiate


def test_version_table(vectors: Path) -> None:
    rows = json.loads((vectors / "kbs/table-vectors.json").read_text())["request_version (2.2)"]
    assert len(rows) > 10
    for row in rows:
        if row["accepted"]:
            assert negotiate(row["version"]) is ProtocolVersion.V0_4_0
        else:
            with pytest.raises(UnsupportedVersion):
                negotiate(row["version"])


@pytest.mark.parametrize("text", ["0.4.0+x", "0.4.0+build.7", "0.4.0+00", "0.4.0+-", "0.4.0+" + "x" * 250])
def test_build_metadata_is_ignored(text: str) -> None:
    assert negotiate(text) is ProtocolVersion.V0_4_0


@pytest.mark.parametrize("text", ["0.2.0", "0.4.1", "0.4.0-rc1", "0.4.0-rc.1+x", "1.0.0", "10.4.0"])
def test_a_guest_is_told_the_mismatch_in_the_words_it_looks_for(text: str) -> None:
    with pytest.raises(UnsupportedVersion) as refusal:
        negotiate(text)
    detail = str(refusal.value)
    assert f"KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is {text}" in detail
    assert "versions spoken: 0.4.0" in detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.4",
        "v0.4.0",
        "0.04.0",
        " 0.4.0",
        "0.4.0\n",
        "0.4.0 ",
        "0.4.0+",
        "0.4.0-",
        "0.4.0+a+b",
        "0.4.0+a..b",
        "0.4.0-01",
        "0.4.0.0",
        "=0.4.0",
        "\u0660.\u0664.\u0660",
        "0.4.0+ü",
        "0.4.99999999999999999999",
        "0.4.0+" + "x" * 251,
        "<script>",
    ],
)
def test_what_is_no_semantic_version_is_not_repeated(text: str) -> None:
    with pytest.raises(UnsupportedVersion) as refusal:
        negotiate(text)
    assert "while the request is no semantic version" in str(refusal.value)
    assert "versions spoken: 0.4.0" in str(refusal.value)


def test_a_version_that_is_switched_off_is_not_spoken() -> None:
    with pytest.raises(UnsupportedVersion, match="versions spoken: none"):
        negotiate("0.4.0", frozenset())


@given(st.text(max_size=300) | st.from_regex(r"\d{1,3}(\.\d{1,3}){0,4}([-+][a-z0-9.-]*){0,2}"))
def test_any_other_text_raises_nothing_else(text: str) -> None:
    try:
        assert negotiate(text) is ProtocolVersion.V0_4_0
    except UnsupportedVersion:
        assert not text.startswith("0.4.0+") or not text.removeprefix("0.4.0+").isalnum() or not text.isascii()
