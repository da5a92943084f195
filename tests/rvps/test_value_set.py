"""Value sets: one form out, only that form's members in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.errors import StatementUnacceptable
from rvps.value_set import Artifact, ValueSet, read, write

DIGEST = {"sha256": "ab" * 32}
GOOD: dict[str, Any] = {
    "series": "kata-guest",
    "tee": "snp",
    "values": {"snp_launch_measurement": ["ab" * 48], "snp_bootloader": 3},
    "artifacts": [{"name": "OVMF.fd", "digest": DIGEST}],
    "together": True,
    "known_bad": {"snp_launch_measurement": ["cd" * 48]},
}


def raw(**changes: Any) -> bytes:
    document = {**GOOD, **changes}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def test_what_is_written_is_read_again() -> None:
    first = read(raw())
    assert first.artifacts == (Artifact("OVMF.fd", DIGEST),)
    assert first.together
    assert first.tee == "snp"
    assert read(write(first)) == first
    assert write(read(write(first))) == write(first)


def test_series_and_values_are_enough() -> None:
    few = read(raw(tee=..., artifacts=..., together=..., known_bad=...))
    assert few == ValueSet("kata-guest", GOOD["values"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra": 1}, "unknown member"),
        ({"series": ...}, "`series` is missing"),
        ({"values": ...}, "`values` is missing"),
        ({"series": ""}, "`series`"),
        ({"series": "/a"}, "`series`"),
        ({"series": "a b"}, "`series`"),
        ({"series": 5}, "`series`"),
        ({"series": "a" * 129}, "`series`"),
        ({"tee": "SNP"}, "`tee`"),
        ({"tee": 1}, "`tee`"),
        ({"values": {}, "known_bad": {}}, "neither"),
        ({"values": []}, "objects"),
        ({"values": {"a": None}}, "null"),
        ({"values": {"": 1}}, "name"),
        ({"values": {"a/../b": 1}}, "segment"),
        ({"values": {"a\u202eb": 1}}, "printed"),
        ({"known_bad": []}, "objects"),
        ({"known_bad": {"a": []}}, "known bad"),
        ({"known_bad": {"a": 1}}, "known bad"),
        ({"known_bad": {"a": [None]}}, "known bad"),
        ({"known_bad": {"snp_launch_measurement": ["ab" * 48]}}, "both"),
        ({"known_bad": {"snp_bootloader": [3]}}, "both"),
        ({"together": 1}, "`together`"),
        ({"together": None}, "`together`"),
        ({"artifacts": {}}, "array"),
        ({"artifacts": [1]}, "artifact"),
        ({"artifacts": [{"name": "x"}]}, "artifact"),
        ({"artifacts": [{"name": "x", "digest": DIGEST, "uri": "y"}]}, "artifact"),
        ({"artifacts": [{"name": "x", "digest": {}}]}, "no digest"),
        ({"artifacts": [{"name": "x", "digest": []}]}, "object"),
        ({"artifacts": [{"name": "x", "digest": {"md5": "ab" * 16}}]}, "digest"),
        ({"artifacts": [{"name": "x", "digest": {"sha256": "AB" * 32}}]}, "lower-case"),
        ({"artifacts": [{"name": "x", "digest": {"sha256": "ab" * 31}}]}, "64"),
        ({"artifacts": [{"name": "x", "digest": {"sha256": 5}}]}, "64"),
        ({"artifacts": [{"name": "", "digest": DIGEST}]}, "name"),
        ({"artifacts": [{"name": 5, "digest": DIGEST}]}, "name"),
        ({"artifacts": [{"name": "x", "digest": DIGEST}] * 1025}, "more than"),
    ],
)
def test_anything_else_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StatementUnacceptable, match=said):
        read(raw(**changes))


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"null", b'{"series":"a","series":"b","values":{"a":1}}', b"\xff", b"[" * 100_000, b'{"series":"a'],
)
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(StatementUnacceptable, match="value set"):
        read(document)


def test_known_bad_compares_json_values_not_python_ones() -> None:
    assert read(raw(values={"a": [True]}, known_bad={"a": [1]})).known_bad == {"a": [1]}


def test_a_file_becomes_an_artifact(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(b"x" * (3 << 20))
    seen: list[int] = []
    artifact = Artifact.from_file(path, algorithms=("sha256", "sha384"), progress=seen.append)
    assert artifact.name == "OVMF.fd"
    assert artifact.digest == {
        "sha256": hashlib.sha256(b"x" * (3 << 20)).hexdigest(),
        "sha384": hashlib.sha384(b"x" * (3 << 20)).hexdigest(),
    }
    assert sum(seen) == 3 << 20
    assert len(seen) == 3
    assert Artifact.from_file(path, name="firmware").name == "firmware"


@pytest.mark.parametrize("algorithms", [("md5",), (), ("sha256", "sha1")])
def test_weak_digests_are_not_made(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StatementUnacceptable, match="hashed with"):
        Artifact.from_file(tmp_path / "a", algorithms=algorithms)


def test_a_missing_file_is_the_callers_business(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Artifact.from_file(tmp_path / "none")


_JSON = st.recursive(st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), _JSON, max_size=6))
def test_no_document_raises_anything_else(changes: dict[str, Any]) -> None:
    try:
        read(json.dumps({**GOOD, **changes}).encode())
    except StatementUnacceptable:
        return


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(document: bytes) -> None:
    with pytest.raises(StatementUnacceptable):
        read(document)
