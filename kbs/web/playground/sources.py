"""What the page offers in its lists: policies and claims that come with kbs, and those of a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kbs.errors import MalformedMessage
from kbs.policy.engine import PolicyKind
from kbs.policy.shipped import Shipped
from kbs.policy.workbench import fixture_data
from kbs.web.playground.form import Form, pretty

_BROKER = "broker:"


class SourceUnavailable(Exception):
    """A broker does not answer, or says no; the text may be shown."""


class BrokerSource(Protocol):
    """A broker's policies and reference values, read only. Methods raise `SourceUnavailable`."""

    name: str

    def policies(self) -> Sequence[tuple[PolicyKind, str]]:
        """Kind and id of the active ones."""

    def text(self, kind: PolicyKind, policy_id: str) -> str:
        """An active text."""

    def values(self) -> Mapping[str, Any]:
        """The values that are valid now."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a list."""

    value: str
    label: str


class Sources:
    """Everything to choose from. broker: None: only what comes with kbs."""

    def __init__(self, broker: BrokerSource | None = None) -> None:
        self._shipped = Shipped.load()
        self._data = fixture_data()
        self.broker = broker

    def first(self) -> Form:
        """What the page begins with: a good guest under the default policy."""
        return self.with_sample(self.with_policy(Form(), "evidence/cpu"), "snp.good")

    def shipped(self) -> list[Choice]:
        """The policies that come with kbs."""
        return [Choice(name, name) for name in self._shipped.names()]

    def of_broker(self) -> list[Choice]:
        """
        Raises:
            SourceUnavailable.
        """
        if self.broker is None:
            return []
        listed = self.broker.policies()
        return [Choice(f"{_BROKER}{kind.value}/{name}", f"{kind.value}/{name}") for kind, name in listed]

    def samples(self) -> list[Choice]:
        """Claims of every TEE, and tokens that were made of them."""
        claims = [f"{tee}.{name}" for tee, variants in sorted(self._data["fixtures"].items()) for name in variants]
        tokens = [f"{tee}.{name}" for tee, variants in sorted(self._data["tokens"].items()) for name in variants]
        return [*(Choice(each, f"claims {each}") for each in claims), *(_token(each) for each in tokens)]

    def with_policy(self, form: Form, name: str) -> Form:
        """The form with a policy of the lists.

        Raises:
            MalformedMessage: no such policy. SourceUnavailable: the broker's.
        """
        if name in self._shipped.names():
            policy = self._shipped.policy(name)
            return form.with_policy(policy.kind, policy.text)
        kind, _, policy_id = name.removeprefix(_BROKER).partition("/")
        if self.broker is None or not name.startswith(_BROKER) or kind not in set(PolicyKind):
            raise MalformedMessage("choose a policy of the list")
        return form.with_policy(PolicyKind(kind), self.broker.text(PolicyKind(kind), policy_id))

    def with_sample(self, form: Form, name: str) -> Form:
        """The form with sample claims, and the reference values that approve the good ones.

        Raises:
            MalformedMessage: no such sample.
        """
        kind, _, rest = name.rpartition(":")
        tee, _, variant = rest.partition(".")
        found = self._data["tokens" if kind == "token" else "fixtures"].get(tee, {}).get(variant)
        if found is None or kind not in ("", "token"):
            raise MalformedMessage("choose a sample of the list")
        values = {} if kind == "token" else self._data["references"].get(tee, {})
        sets = pretty([{**values, "release": "good"}] if values else [])
        return replace(form, claims=pretty(found), values=pretty(values), sets=sets)

    def with_broker_values(self, form: Form) -> Form:
        """The form with the broker's reference values.

        Raises:
            MalformedMessage: there is no broker. SourceUnavailable: it does not give them.
        """
        if self.broker is None:
            raise MalformedMessage("the playground was started without a broker")
        return replace(form, values=pretty(dict(self.broker.values())))


def _token(name: str) -> Choice:
    return Choice(f"token:{name}", f"token {name}")
