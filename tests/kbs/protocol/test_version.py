"""Which versions are spoken, and what a guest is told otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import UnsupportedVersion
from kbs.protocol.version import SPOKEN, ProtocolVersion, negotiate, spoken_from

OLD = ("0.1.0", "0.1.1", "0.2.0")
ALONE = spoken_from("0.4.0")


def test_version_table(vectors: Path) -> None:
    rows = json.loads((vectors / "kbs/table-vectors.json").read_text())["request_version (2.2)"]
    assert len(rows) > 10
    for row in rows:
        if row["accepted"]:
            assert negotiate(row["version"], ALONE) is ProtocolVersion.V0_4_0
        else:
            with pytest.raises(UnsupportedVersion):
                negotiate(row["version"], ALONE)
    assert {row["version"] for row in rows if not row["accepted"]} > {"0.3.0", *OLD}


@pytest.mark.parametrize("minimum", ProtocolVersion)
@pytest.mark.parametrize("text", ProtocolVersion)
def test_a_version_is_spoken_from_the_minimum_on(text: str, minimum: str) -> None:
    spoken = spoken_from(minimum)
    if [*ProtocolVersion].index(ProtocolVersion(text)) >= [*ProtocolVersion].index(ProtocolVersion(minimum)):
        assert negotiate(text, spoken) == negotiate(f"{text}+build", spoken) == text
        return
    with pytest.raises(UnsupportedVersion, match=r"older than this broker's minimum; versions spoken: .*0\.4\.0$"):
        negotiate(text, spoken)


def test_what_is_spoken_unless_somebody_says_otherwise() -> None:
    assert spoken_from("0.1.0") == SPOKEN == {*OLD, "0.4.0"}


@pytest.mark.parametrize("minimum", ["", "0.3.0", "0.4", "0.4.0+x", "1.0.0"])
def test_a_minimum_is_a_version_that_is_known(minimum: str) -> None:
    with pytest.raises(ValueError):
        spoken_from(minimum)


def test_the_version_between_two_releases_is_refused_by_name() -> None:
    for spoken in map(spoken_from, ProtocolVersion):
        with pytest.raises(UnsupportedVersion, match=r"the request is 0\.3\.0, which was never released; versions"):
            negotiate("0.3.0", spoken)
    with pytest.raises(UnsupportedVersion) as refusal:
        negotiate("0.3.0-rc1")
    assert "never released" not in str(refusal.value)


@pytest.mark.parametrize("text", ["0.4.0+x", "0.4.0+build.7", "0.4.0+00", "0.4.0+-", "0.4.0+" + "x" * 250])
def test_build_metadata_is_ignored(text: str) -> None:
    assert negotiate(text) is ProtocolVersion.V0_4_0


@pytest.mark.parametrize(
    "text", ["0.2.1", "0.1.2", "0.3.0", "0.2.0-rc1", "0.4.1", "0.4.0-rc1", "0.4.0-rc.1+x", "1.0.0", "10.4.0"]
)
def test_a_guest_is_told_the_mismatch_in_the_words_it_looks_for(text: str) -> None:
    with pytest.raises(UnsupportedVersion) as refusal:
        negotiate(text)
    detail = str(refusal.value)
    assert f"KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is {text}" in detail
    assert detail.endswith("versions spoken: 0.1.0, 0.1.1, 0.2.0, 0.4.0")


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
    assert str(refusal.value).endswith("versions spoken: 0.1.0, 0.1.1, 0.2.0, 0.4.0")


def test_a_version_that_is_switched_off_is_not_spoken() -> None:
    with pytest.raises(UnsupportedVersion, match="versions spoken: none"):
        negotiate("0.4.0", frozenset())


@given(st.text(max_size=300) | st.from_regex(r"\d{1,3}(\.\d{1,3}){0,4}([-+][a-z0-9.-]*){0,2}"))
def test_any_other_text_raises_nothing_else(text: str) -> None:
    try:
        assert negotiate(text).value == text.partition("+")[0]
    except UnsupportedVersion:
        assert not text.startswith("0.4.0+") or not text.removeprefix("0.4.0+").isalnum() or not text.isascii()
