"""Guest targets as the protocol decodes them; admin paths in their one spelling (P-RULE-2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import MalformedMessage, RouteNotFound
from kbs.protocol.target import PREFIX, Target, canonical_admin_path, split_target

DOUBLE_SLASH = "/kbs/v0/resource//default/key/1"


def rows(vectors: Path) -> list[dict[str, Any]]:
    table = json.loads((vectors / "kbs/table-vectors.json").read_text())
    found: list[dict[str, Any]] = table["url_decoding_and_policy_data (1.2, 7.2)"]
    assert len(found) >= 12
    return found


def test_url_decoding_table(vectors: Path) -> None:
    for row in rows(vectors):
        data = row["data"]
        target = split_target(row["target"])
        assert (target.plugin, list(target.segments), target.query) == (
            data["plugin"],
            data["resource-path"],
            data["query"],
        )


def test_collapsing_changes_one_row_of_the_table(vectors: Path) -> None:
    """The reference hands policies the empty segment; here it is gone before policy and plugin see the path."""
    changed = [row["target"] for row in rows(vectors) if (t := split_target(row["target"])).collapsed() != t]
    assert changed == [DOUBLE_SLASH]
    assert split_target(DOUBLE_SLASH).collapsed() == Target("resource", ("default", "key", "1"))


@pytest.mark.parametrize(
    ("target", "segments"),
    [
        ("/kbs/v0/resource///a/b/c", ("", "a", "b", "c")),
        ("/kbs/v0/resource/%2Fa/b/c", ("a", "b", "c")),
        ("/kbs/v0/sample/", ("",)),
        ("/kbs/v0/sample//", ("",)),
        ("/kbs/v0/sample", ()),
        ("/kbs/v0/resource/a//b", ("a", "", "b")),
    ],
)
def test_one_leading_empty_segment_is_collapsed(target: str, segments: tuple[str, ...]) -> None:
    assert split_target(target).collapsed().segments == segments


@pytest.mark.parametrize(
    ("target", "plugin", "segments"),
    [
        ("/kbs/v0/", "", ()),
        ("/kbs/v0//", "", ("",)),
        ("/kbs/v0/a/100%", "a", ("100%",)),
        ("/kbs/v0/a/%zz%4", "a", ("%zz%4",)),
        ("/kbs/v0/a/%41%", "a", ("A%",)),
        ("/kbs/v0/a/%C3%BC", "a", ("ü",)),
        ("/kbs/v0/a/%ff", "a", ("\ufffd",)),
        ("/kbs/v0/a/%C0%AE", "a", ("\ufffd\ufffd",)),
        ("/kbs/v0/a/%E2%82", "a", ("\ufffd",)),
        ("/kbs/v0/a/\xc3\xbc", "a", ("ü",)),
        ("/kbs/v0/a/\xff", "a", ("\ufffd",)),
        ("/kbs/v0/a/%2e%2e/b", "a", ("..", "b")),
        ("/kbs/v0/a/../b", "a", ("..", "b")),
        ("/kbs/v0/a/%00", "a", ("\0",)),
        ("/kbs/v0/a%3Fb=c", "a?b=c", ()),
        ("/kbs/v0/a%252Fb", "a%2Fb", ()),
    ],
)
def test_paths_decode_once_as_a_whole(target: str, plugin: str, segments: tuple[str, ...]) -> None:
    assert split_target(target) == Target(plugin, segments)


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        ("", {}),
        ("&", {}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=a", {"": "a"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1&a=2", {"a": "2"}),
        ("a=1&a", {"a": ""}),
        ("a+b=c+d%2B", {"a b": "c d+"}),
        ("a=%26%3D", {"a": "&="}),
        ("a=%ff", {"a": "\ufffd"}),
        ("a=%", {"a": "%"}),
        ("a=b?c/d", {"a": "b?c/d"}),
        ("%61=1&a=2", {"a": "2"}),
        ("a;b=1", {"a;b": "1"}),
    ],
)
def test_queries_are_form_decoded(query: str, pairs: dict[str, str]) -> None:
    assert split_target(f"/kbs/v0/p?{query}").query == pairs


def test_query_pairs_are_bounded() -> None:
    assert len(split_target("/kbs/v0/p?" + "&".join(f"k{n}" for n in range(1000))).query) == 1000
    with pytest.raises(MalformedMessage):
        split_target("/kbs/v0/p?" + "&".join(f"k{n}" for n in range(1001)))


@pytest.mark.parametrize("target", ["", "/", "/kbs/v0", "/kbs/v1/a", "/KBS/v0/a", "kbs/v0/a", "//kbs/v0/a", "/healthz"])
def test_other_paths_are_no_routes(target: str) -> None:
    with pytest.raises(RouteNotFound):
        split_target(target)


def test_characters_that_are_no_octets_are_refused() -> None:
    for target in ("/kbs/v0/a/\u0100", "/kbs/v0/a?b=\ud800"):
        with pytest.raises(MalformedMessage):
            split_target(target)


@given(st.text(max_size=60) | st.text(st.sampled_from("/%2fF?&=+ab.\xff"), max_size=60))
def test_any_target_below_the_prefix_decodes_or_is_malformed(rest: str) -> None:
    try:
        target = split_target(PREFIX + rest)
    except MalformedMessage:
        return
    assert "/".join((target.plugin, *target.segments)).count("/") == len(target.segments)


# --- admin paths ------------------------------------------------------------------------------------------------------

FORBIDDEN = "/kbs/v0/resource/default/key/1"


@pytest.mark.parametrize(
    ("path", "plugin", "segments"),
    [
        (FORBIDDEN, "resource", ("default", "key", "1")),
        ("/kbs/v0/resource-policy", "resource-policy", ()),
        ("/kbs/v0/reference-value/launch_digest:1@a", "reference-value", ("launch_digest:1@a",)),
        ("/kbs/v0/resource/1.ok/2ok./3...", "resource", ("1.ok", "2ok.", "3...")),
        ("/kbs/v0/resource/A/B/C", "resource", ("A", "B", "C")),
    ],
)
def test_canonical_admin_paths_pass(path: str, plugin: str, segments: tuple[str, ...]) -> None:
    assert canonical_admin_path(path) == Target(plugin, segments)


def spellings(path: str) -> Iterator[str]:
    """Ways in which some server, proxy or file system takes another text for `path`."""
    for at, char in enumerate(path):
        code = ord(char)
        for spelt in (
            f"%{code:02x}", f"%{code:02X}", f"%25{code:02x}", f"%u{code:04x}", f"\\u{code:04x}", f"&#{code};",
            f"%{0xC0 | code >> 6:02x}%{0x80 | code & 63:02x}", f"%e0%{0x80 | code >> 6:02x}%{0x80 | code & 63:02x}",
            chr(0xFEE0 + code), chr(code | 0x80), char + "\u0301",
        ):  # fmt: skip
            yield path[:at] + spelt + path[at + 1 :]
        for inserted in ("\0", "\t", "\n", "\r", " ", "\u200b", "%00", "%0a", "%20", "%", "\x7f", "\xad"):
            yield path[:at] + inserted + path[at:]
        if char == "/":
            for spelt in (
                "//", "///", "/./", "/../", "/x/../", "/%2e/", "/%2e%2e/", "/%2E./", "\\", "/\\", "\\/", "/;/",
                "/;x=1/", ";x/", ";/", "/..;/", "%2f", "%2F", "/%2f", "%5c", "%252f", "\u2215", "\u2044", "\uff0f",
                "/.%00/",
            ):  # fmt: skip
                yield path[:at] + spelt + path[at + 1 :]
    for tail in ("/", "//", "/.", "/..", "\n", "\r\n", "%0a", "%0d%0a", " ", "\t", ";", ";a=b", "?", "?a=b", "#", "#a",
                 "%23", "%3f", "\\", "\0", "%00", ".%0a", "/%2e", "/;"):  # fmt: skip
        yield path + tail
    for name in ("kbs", "v0", "resource"):
        yield path.replace(name, name.upper())
        yield path.replace(name, name.capitalize())
    yield from ("http://localhost" + path, path[1:], "/" + path, "\\" + path, "." + path, path.upper(), path.title())


def test_500_spellings_of_a_forbidden_path_do_not_pass() -> None:
    tried = {spelling for spelling in spellings(FORBIDDEN) if spelling != FORBIDDEN}
    assert len(tried) >= 500
    for spelling in tried:
        with pytest.raises(MalformedMessage):
            canonical_admin_path(spelling)


@pytest.mark.parametrize("path", ["/metrics", "/kbs/v1/a", "/kbs/v00/a", "/kbs/v0"])
def test_other_admin_paths_are_no_routes(path: str) -> None:
    with pytest.raises(RouteNotFound):
        canonical_admin_path(path)


@given(st.text(max_size=40) | st.text(st.sampled_from("/.abAB;%2e\\\n-_~"), max_size=30))
def test_what_passes_is_spelt_as_it_is_dispatched(rest: str) -> None:
    try:
        target = canonical_admin_path(PREFIX + rest)
    except MalformedMessage:
        return
    assert PREFIX + "/".join((target.plugin, *target.segments)) == PREFIX + rest
    assert target == split_target(PREFIX + rest) == target.collapsed()
