"""What a broker tells an administrator, as typed values. Decoders refuse answers of another shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from kbs.client.errors import UnexpectedAnswer
from kbs.strict_json import Json


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a resource or policy, without its content.

    meta: what the broker keeps beside it: `author`, `time` (ISO 8601), `size`, …
    """

    name: str
    version: int
    meta: Mapping[str, str]

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"name" or "id", "version", …}`; all other members are `meta`."""
        members = _object(value, "a version")
        label = "name" if "name" in members else "id"
        meta = {name: _joined(text) for name, text in members.items() if name not in (label, "version")}
        return cls(_text(members, label), _number(members, "version"), meta)


@dataclass(frozen=True, slots=True)
class ResourceVersions:
    """The kept versions of one resource, oldest first."""

    path: str
    version: int
    versions: tuple[VersionInfo, ...]

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"path", "version", "versions": […]}`."""
        members = _object(value, "a resource")
        versions = tuple(VersionInfo.read(each) for each in array(members.get("versions"), "versions"))
        return cls(_text(members, "path"), _number(members, "version"), versions)


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """One line of the list of policies. `members` is the whole line as the broker sent it."""

    kind: str
    policy_id: str
    members: Mapping[str, Json]

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"kind", "id" or "policy_id", …}`."""
        members = _object(value, "a policy")
        return cls(_text(members, "kind"), _text(members, "id" if "id" in members else "policy_id"), members)


@dataclass(frozen=True, slots=True)
class PolicyText:
    """An active policy. digest: SHA-256 of the text, hex. history: kept versions, oldest first."""

    kind: str
    policy_id: str
    digest: str
    origin: str
    text: str = field(repr=False)
    history: tuple[VersionInfo, ...]

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"kind", "id", "digest", "origin", "text", "history": […]}`."""
        members = _object(value, "a policy")
        return cls(
            kind=_text(members, "kind"),
            policy_id=_text(members, "id"),
            digest=_text(members, "digest"),
            origin=_text(members, "origin"),
            text=_text(members, "text"),
            history=tuple(VersionInfo.read(each) for each in array(members.get("history"), "history")),
        )


@dataclass(frozen=True, slots=True)
class ReferenceValueInfo:
    """One stored reference value with who vouches for it, and whether it was valid when the broker answered."""

    name: str
    value: Json
    issuer: str
    statement: str
    valid_from: datetime
    valid_until: datetime
    valid: bool

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"name", "value", "issuer", "statement", "valid_from", "valid_until", "valid"}`."""
        members = _object(value, "a reference value")
        if "value" not in members or not isinstance(members.get("valid"), bool):
            raise UnexpectedAnswer("a reference value lacks `value` or `valid`")
        return cls(
            name=_text(members, "name"),
            value=members["value"],
            issuer=_text(members, "issuer"),
            statement=_text(members, "statement"),
            valid_from=_moment(members, "valid_from"),
            valid_until=_moment(members, "valid_until"),
            valid=members["valid"],
        )


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new admin token. `token` is shown by nothing but itself."""

    token: str = field(repr=False)
    token_id: str
    expires: datetime

    @classmethod
    def read(cls, value: Json) -> Self:
        """From `{"token", "id", "expires"}`."""
        members = _object(value, "an admin token")
        return cls(_text(members, "token"), _text(members, "id"), _moment(members, "expires"))


def array(value: Json, what: str) -> list[Json]:
    """`value`, which must be an array.

    Raises:
        UnexpectedAnswer: it is none.
    """
    if not isinstance(value, list):
        raise UnexpectedAnswer(f"{what}: not an array")
    return value


def _joined(value: Json) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise UnexpectedAnswer(f"{what}: not an object")
    return value


def _text(members: Mapping[str, Json], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise UnexpectedAnswer(f"`{name}` is missing or not a string")
    return value


def _number(members: Mapping[str, Json], name: str) -> int:
    value = members.get(name)
    if type(value) is not int:
        raise UnexpectedAnswer(f"`{name}` is missing or not a number")
    return value


def _moment(members: Mapping[str, Json], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(members, name))
    except ValueError:
        raise UnexpectedAnswer(f"`{name}` is not a time") from None
    if moment.tzinfo is None:
        raise UnexpectedAnswer(f"`{name}` is a time without a zone")
    return moment
