"""Kinds of arguments that several commands take."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import click

from kbs import strict_json
from kbs.errors import KbsError
from kbs.strict_json import Json

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_DIGITS: Final = 9


class JsonValue(click.ParamType[Any]):
    """Any JSON value, converted to a list of it: None would stand for an argument that is not there."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Json]:
        try:
            return [strict_json.decode(value.encode())]
        except KbsError:
            self.fail(f"{value!r} is not JSON; a text needs its quotes: '\"text\"'", param, ctx)


class NamedJson(click.ParamType[Any]):
    """`NAME=JSON`."""

    name = "name=json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Json]:
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail("write NAME=JSON", param, ctx)
        return name, JsonValue().convert(text, param, ctx)[0]


class Moment(click.ParamType[Any]):
    """An RFC 3339 time with its zone."""

    name = "rfc3339"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write one like 2027-01-31T12:00:00Z", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} names no zone; write one like 2027-01-31T12:00:00Z", param, ctx)
        return moment


class Duration(click.ParamType[Any]):
    """A number and a unit: `90s`, `15m`, `24h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        digits, unit = value[:-1], value[-1:]
        if unit not in _UNITS or not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
            self.fail(f"{value!r} is no duration; write one like 90s, 15m, 24h or 7d", param, ctx)
        return timedelta(seconds=int(digits) * _UNITS[unit])
