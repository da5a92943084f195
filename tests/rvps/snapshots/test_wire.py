"""Snapshots on their way to brokers: one reading, fast or strict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvps.errors import ProviderUnavailable
from rvps.snapshots import wire as snapshot_wire
from rvps.strict_json import encode
from tests.rvps.remote.test_provider import snapshot_of
from tests.rvps.test_service import SECOND


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_snapshot_or_none(body: bytes) -> None:
    try:
        snapshot_wire.read(body)
    except ProviderUnavailable:
        return
    raise AssertionError("random bytes are no snapshot")


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.lists(st.text(max_size=3)), max_size=5),
    st.none() | st.integers(0, 10**8),
)
def test_what_the_service_writes_is_what_is_read(values: dict[str, Any], seconds: int | None) -> None:
    written = snapshot_of(values, None if seconds is None else seconds * SECOND)
    read = snapshot_wire.read(snapshot_wire.write(written))
    assert (read.version, dict(read.values), read.encoded, read.valid_until) == (
        written.version,
        values,
        written.encoded,
        written.valid_until,
    )


@pytest.mark.parametrize("value", [10**60, -(2**64), 1e15, 0.1, "\u2028\x7fü", [[[]]], {"b": 1, "a": {}}, None])
def test_every_value_arrives_as_it_was(value: Any) -> None:
    read = snapshot_wire.read(snapshot_wire.write(snapshot_of({"a": value})))
    assert (dict(read.values), read.encoded) == ({"a": value}, encode({"a": value}))


def test_another_spelling_is_read_all_the_same() -> None:
    plain = snapshot_wire.write(snapshot_of({"b": [1], "a": 2}))
    read = snapshot_wire.read(json.dumps(json.loads(plain), indent=1).encode())
    assert read == snapshot_wire.read(plain)


@pytest.mark.parametrize(
    "values",
    ['{"a":1,"a":1}', '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', '{"a":' + "[" * 100_000],
    ids=["repeated", "NaN", "infinite", "surrogate", "deep"],
)
def test_what_readers_disagree_about_is_refused(values: str) -> None:
    body = f'{{"format":1,"version":"{"0" * 64}","valid_until":null,"values":{values},"sets":{{}}}}'
    with pytest.raises(ProviderUnavailable, match="does not read"):
        snapshot_wire.read(body.encode())
