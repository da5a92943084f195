"""Records of older releases become messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rvps import messages
from rvps.errors import StatementUnacceptable
from rvps.stored_forms import message_from

RECORDS = json.loads((Path(__file__).parents[1] / "vectors/rvps/messages.json").read_text())["stored_records"]


@pytest.mark.parametrize("form", ["current", "before_2025_07", "oldest"])
def test_every_stored_form_delivers_the_same_value(form: str) -> None:
    message = message_from(json.dumps(RECORDS[form]).encode())
    found = messages.read(message, datetime(2026, 6, 1, tzinfo=UTC))
    assert dict(found.values) == {"svn": RECORDS["delivered_to_policy"]}
    assert found.valid_until == datetime(2027, 1, 1, tzinfo=UTC)


def test_what_expired_while_stored_is_not_registered_again() -> None:
    message = message_from(json.dumps(RECORDS["current"]).encode())
    with pytest.raises(StatementUnacceptable, match="has passed"):
        messages.read(message, datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b'{"name":"a","value":1}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z"}',
        b'{"name":1,"expiration":"2027-01-01T00:00:00Z","value":1}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z","value":1,"hash-value":[]}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z","hash-value":{}}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z","hash-value":["1"]}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z","hash-value":[{"alg":"sha384"}]}',
        b'{"name":"a","expiration":"2027-01-01T00:00:00Z","hash-value":[{"value":1}]}',
    ],
)
def test_other_records_are_refused(record: bytes) -> None:
    with pytest.raises(StatementUnacceptable):
        message_from(record)
