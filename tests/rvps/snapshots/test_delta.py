"""What changed between two snapshots: a delta leads exactly to the newer one, or nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.errors import ProviderUnavailable
from rvps.model import Snapshot
from rvps.rest import SnapshotAnswers
from rvps.snapshots import delta as snapshot_delta
from rvps.snapshots import wire as snapshot_wire
from rvps.strict_json import decode, encode
from tests.rvps.remote.test_provider import snapshot_of
from tests.rvps.test_service import SECOND

VALUES = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, [1], [1.0], [True], "1"])),
    max_size=8,
)


def with_sets(snapshot: Snapshot, sets: dict[str, Any]) -> Snapshot:
    return replace(snapshot, encoded_sets=encode(sets))


def applied(old: Snapshot, new: Snapshot, body: bytes | None = None) -> Snapshot:
    tag = snapshot_wire.tag_of(snapshot_wire.write(new))
    return snapshot_delta.Replica(old).apply(snapshot_delta.write(old, new) if body is None else body, tag, new.number)


@settings(deadline=None, max_examples=150)
@given(VALUES, VALUES, st.none() | st.integers(0, 10**6))
def test_a_delta_leads_to_the_newer_snapshot(
    before: dict[str, Any], after: dict[str, Any], seconds: int | None
) -> None:
    old = with_sets(snapshot_of(before), {"a": [{"a": 1}]})
    new = with_sets(snapshot_of(after, None if seconds is None else seconds * SECOND), {"b": []} if seconds else {})
    found = applied(old, new)
    assert (found.version, found.encoded, found.encoded_sets, found.valid_until) == (
        new.version,
        new.encoded,
        new.encoded_sets,
        new.valid_until,
    )
    assert encode(dict(found.values)) == new.encoded


def test_only_what_changed_travels() -> None:
    old = snapshot_of({f"n{n}": [n] for n in range(1000)})
    new = snapshot_of({**{f"n{n}": [n] for n in range(1, 1000)}, "n7": ["other"], "x": 1})
    assert decode(snapshot_delta.write(old, new), max_bytes=1000) == {
        "format": 1,
        "version": new.version,
        "valid_until": None,
        "values": {"n7": ["other"], "x": 1},
        "removed": ["n0"],
        "sets": None,
    }


OLD, NEW = snapshot_of({"a": 1, "b": [2]}), snapshot_of({"a": 1, "c": [3]})
GOOD = decode(snapshot_delta.write(OLD, NEW), max_bytes=1000)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": {"c": [3], "d": 4}}, "ETag"),
        ({"values": {}}, "ETag"),
        ({"removed": []}, "ETag"),
        ({"removed": ["x"]}, "not there"),
        ({"removed": ["b", "b"]}, "not there"),
        ({"removed": [1]}, "types"),
        ({"removed": "b"}, "types"),
        ({"values": None}, "types"),
        ({"sets": []}, "types"),
        ({"sets": {"a": []}}, "ETag"),
        ({"version": 1}, "types"),
        ({"version": OLD.version}, "ETag"),
        ({"valid_until": "tomorrow"}, "time"),
        ({"valid_until": 7}, "time"),
        ({"valid_until": "2027-01-01T00:00:00Z"}, "ETag"),
        ({"format": 2}, "form"),
        ({"more": 1}, "form"),
    ],
    ids=str,
)
def test_what_leads_elsewhere_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProviderUnavailable, match=reason):
        applied(OLD, NEW, encode({**GOOD, **changes}))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"format":1,"format":1}', b"\xff"])
def test_what_is_no_delta_is_refused(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        applied(OLD, NEW, body)


def test_the_service_answers_with_the_shorter_way() -> None:
    answers, many = SnapshotAnswers(), {f"n{n}": [n] for n in range(100)}
    snapshots = [snapshot_of({**many, "x": n}) for n in range(9)]

    def ask(snapshot: Snapshot, known: str | None, a_im: str | None = snapshot_delta.MANIPULATION) -> Any:
        return answers.answer(snapshot, if_none_match=known, accept_encoding=None, a_im=a_im)

    tags = [dict(ask(made, None).headers)["ETag"] for made in snapshots]
    newest = snapshots[-1]
    found = ask(newest, tags[3])
    headers = dict(found.headers)
    assert (found.status, headers["IM"], headers["ETag"]) == (226, snapshot_delta.MANIPULATION, tags[-1])
    assert snapshot_delta.Replica(snapshots[3]).apply(found.body, tags[-1], 0).encoded == newest.encoded
    assert ask(newest, tags[-1]).status == 304
    assert ask(newest, tags[0]).status == 200  # too long ago
    assert ask(newest, '"other"').status == 200
    assert ask(newest, tags[3], None).status == 200  # not asked for
    assert ask(snapshot_of({}), tags[-1]).status == 200  # the whole is shorter
