"""The one form of the playground: what a browser sends, read into a scenario, with line and column of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kbs import strict_json
from kbs.admin.policy_scenario import ANY_REQUEST, LIMITS, Scenario, kind_of, request_of, sets_of
from kbs.errors import KbsError, MalformedMessage
from kbs.policy.engine import PolicyKind

_AT_BYTE: Final = re.compile(r"near byte (\d+)")
_NAMES: Final = {
    "claims": "the claims",
    "values": "the reference values",
    "sets": "the compound sets",
    "request": "the request",
}


@dataclass(frozen=True, slots=True)
class Form:
    """The texts as they stand in the page; whether they are any good is for `scenario`."""

    kind: str = PolicyKind.EVIDENCE.value
    policy: str = field(default="", repr=False)
    claims: str = field(default="{}", repr=False)
    values: str = field(default="{}", repr=False)
    request: str = field(default="", repr=False)
    trace: bool = False
    sets: str = field(default="[]", repr=False)

    @classmethod
    def sent(cls, members: Mapping[str, str]) -> Form:
        """From a browser, which ends lines with CR LF (HTML, form submission)."""

        def text(name: str) -> str:
            return members.get(name, "").replace("\r\n", "\n")

        return cls(
            members.get("kind", ""),
            text("policy"),
            text("claims"),
            text("values"),
            text("request"),
            "trace" in members,
            text("sets"),
        )

    @classmethod
    def of(cls, scenario: Scenario, *, trace: bool = False) -> Form:
        """To show a scenario."""
        return cls(
            scenario.kind.value,
            scenario.policy,
            pretty(scenario.claims),
            pretty(scenario.values),
            pretty(scenario.request),
            trace,
            pretty(scenario.sets),
        )

    def scenario(self) -> Scenario:
        """
        Raises:
            MalformedMessage, PayloadTooLarge: a text that is no JSON object, with its place.
        """
        request = request_of(self._object("request")) if self.request.strip() else dict(ANY_REQUEST)
        values = self._object("values") if self.values.strip() else {}
        sets = sets_of(self._json("sets")) if self.sets.strip() else ()
        return Scenario(kind_of(self.kind), self.policy, self._object("claims"), values, request, sets)

    def with_policy(self, kind: PolicyKind, text: str) -> Form:
        """The same with another policy."""
        return replace(self, kind=kind.value, policy=text)

    def _object(self, name: str) -> Mapping[str, Any]:
        found = self._json(name)
        if not isinstance(found, dict):
            raise MalformedMessage(f"{_NAMES[name]} are not a JSON object, which begins with {{")
        return found

    def _json(self, name: str) -> Any:
        raw = getattr(self, name).encode("utf-8", "replace")
        try:
            return strict_json.decode(raw, limits=LIMITS)
        except MalformedMessage as err:
            raise MalformedMessage(f"{_NAMES[name]}: {_placed(str(err), raw)}") from None
        except KbsError as err:
            raise MalformedMessage(f"{_NAMES[name]}: {err}") from None


def _placed(text: str, raw: bytes) -> str:
    """With line and column in place of the parser's byte."""
    found = _AT_BYTE.search(text)
    if found is None:
        return text
    before = raw[: int(found[1])].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return text.replace(found[0], f"near line {line}, column {column}")


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
