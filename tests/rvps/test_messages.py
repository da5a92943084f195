"""The envelope: versions, types, names, dates, base64."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps import messages
from rvps.errors import StatementUnacceptable

AT = datetime(2026, 11, 21, 10, 0, 0, 999_999, tzinfo=UTC)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors/rvps/messages.json").read_text())["messages"]


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def message(payload: str = b64('{"a":1}'), **members: Any) -> dict[str, Any]:
    return {"type": "sample", "payload": payload, **members}


@pytest.mark.parametrize("case", [case for case in VECTORS if "values" in case], ids=lambda case: case["name"])
def test_messages_of_the_field_are_read_alike(case: dict[str, Any]) -> None:
    assert dict(messages.read(case["message"], AT).values) == case["values"]


@pytest.mark.parametrize("case", [case for case in VECTORS if "values" not in case], ids=lambda case: case["name"])
def test_refusals_hold_the_words_of_the_field(case: dict[str, Any]) -> None:
    with pytest.raises(StatementUnacceptable) as refused:
        messages.read(case["message"], AT)
    assert case["error_contains"] in str(refused.value)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"type": "sample"},
        {"payload": b64("{}")},
        message(version=None, type=None),
        message(version=1),
        message(version="0.1"),
        message(version="0.1.0 "),
        message(type=["sample"]),
        message(type="Sample"),
        message(type="swid"),
        message(type="corim"),
        message(type=""),
        message(payload=""),
        message(payload=b64("")),
        message(payload=b64("[]")),
        message(payload=b64("1")),
        message(payload=b64('{"a":1}{')),
        message(payload=b64('{"a":1,"a":2}')),
        message(payload=b64('{"a":NaN}')),
        message(payload=b64('{"a":1e999}')),
        message(payload=b64('{"a":"\\ud800"}')),
        message(payload=b64(b'{"a":"\xff"}')),
        message(payload=b64('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")),
        message(payload=b64('{"a":' + "[" * 64 + "]" * 64 + "}")),
        message(payload=b64('{"a":' + "9" * 65 + "}")),
        message(payload=b64('{"a":"' + "x" * (1 << 20) + '"}')),
        message(payload="A" * ((2 << 20) + 4)),
        message(payload=b64('{"aa":1}').rstrip("=")),
        message(payload=b64('{"a":1}') + "\n"),
        message(payload=b64('{"a":"???>>>"}').replace("/", "_").replace("+", "-")),
        message(payload="eyJhIjoxfR=="),  # bits beyond the last byte are not zero
        message(expiration="2027-01-01"),
        message(expiration="2027-01-01T00:00:00+00:00"),
        message(expiration="2027-01-01T00:00:00.5Z"),
        message(expiration="2027-02-29T00:00:00Z"),
        message(expiration="2027-01-01T24:00:00Z"),
        message(expiration="0000-01-01T00:00:00Z"),
        message(expiration="\uff12027-01-01T00:00:00Z"),
        message(expiration=1798761600),
        message(expiration=True),
    ],
    ids=lambda broken: json.dumps(broken)[:60],
)
def test_what_is_not_a_message_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(StatementUnacceptable):
        messages.read(broken, AT)


def test_a_missing_extractor_names_what_is_read() -> None:
    wanted = r"Could not find extractor for spdx: this service reads corim, sample, swid"
    with pytest.raises(StatementUnacceptable, match=wanted):
        messages.read(message(type="spdx"), AT)


def test_unknown_members_are_ignored_and_absent_ones_take_their_default() -> None:
    found = messages.read(message(comment="hello", expiration=None), AT)
    assert found.valid_from == AT.replace(microsecond=0)
    assert found.valid_until == datetime(2027, 11, 21, 10, 0, 0, tzinfo=UTC)
    assert found.kind == "sample"


def test_values_do_not_show_in_the_repr() -> None:
    assert "a-name" not in repr(messages.read(message(b64('{"a-name":1}')), AT))


@pytest.mark.parametrize(
    ("moment", "later"),
    [
        ("2026-11-21T10:00:00Z", "2027-11-21T10:00:00Z"),
        ("2028-02-29T23:59:59Z", "2029-02-28T23:59:59Z"),
        ("2027-02-28T00:00:00Z", "2028-02-28T00:00:00Z"),
        ("2026-12-31T00:00:00Z", "2027-12-31T00:00:00Z"),
    ],
)
def test_twelve_calendar_months(moment: str, later: str) -> None:
    assert messages.write_time(messages.months_later(messages.read_time(moment, "moment"), 12)) == later


def test_months_are_counted_across_years() -> None:
    moment = datetime(2026, 10, 31, tzinfo=UTC)
    assert messages.months_later(moment, 4) == datetime(2027, 2, 28, tzinfo=UTC)
    assert messages.months_later(moment, 2) == datetime(2026, 12, 31, tzinfo=UTC)


def test_moments_of_other_zones_are_written_in_utc() -> None:
    moment = datetime(2026, 11, 21, 11, 30, tzinfo=timezone(timedelta(hours=1, minutes=30)))
    assert messages.write_time(moment) == "2026-11-21T10:00:00Z"
    assert messages.read(message(), moment).valid_from == moment


@pytest.mark.parametrize(
    "name",
    [
        "svn",
        "rvps:///github.com/confidential-containers/tdx/mr_td:0.21.0",
        "ACME Ltd./Road Runner/31fb5abf/digests",
        "measure+ment@1",
        "größe",
        "...",
        "a.b/c..d",
        "x" * 255,
    ],
)
def test_names_of_the_field_are_taken(name: str) -> None:
    messages.check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 256,
        "a\n",
        "a\x00",
        "a\x7f",
        "a\x85",
        "a\u2028b",
        "a\u202eb",
        "a\ud800",
        "..",
        "a/../b",
        "a/.",
    ],
    ids=repr,
)
def test_names_that_cannot_be_shown_or_travel_are_refused(name: str) -> None:
    with pytest.raises(StatementUnacceptable):
        messages.check_name(name)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_writing(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    assert messages.read_time(messages.write_time(whole), "moment") == whole


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())) | st.binary())
def test_any_message_is_read_or_refused(content: Any) -> None:
    members = content if isinstance(content, dict) else message(b64(content))
    try:
        found = messages.read(members, AT)
    except StatementUnacceptable:
        return
    assert found.kind == "sample"
    assert found.valid_until > AT
