"""A broker that only the leader changes: who acts is asked again before each change, not once before a look.

A process may stand still for longer than its Lease lasts, and go on in the middle of a look; by then another one leads.
What is already under way when leadership ends is held off by the broker: resources and policies are changed only if
they are still the version that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kbs.k8s.controller.broker import Broker
from kbs.secret import Secret

MayAct = Callable[[], bool]
"""Whether this process leads at this moment."""


class NoLongerLeads(Exception):
    """Another process acts by now; whatever is left of a look is its business."""


def require(may_act: MayAct) -> None:
    """Raises `NoLongerLeads` where it is so."""
    if not may_act():
        raise NoLongerLeads("this process leads no more")


class Fenced:
    """Implements `Broker` over another; each change raises `NoLongerLeads` where another process acts."""

    def __init__(self, broker: Broker, may_act: MayAct) -> None:
        self._broker = broker
        self._may_act = may_act

    def _changed(self) -> Broker:
        require(self._may_act)
        return self._broker

    def status(self) -> Mapping[str, Any]:
        """As `Broker.status`."""
        return self._broker.status()

    def resource_versions(self, path: str) -> Mapping[str, int]:
        """As `Broker.resource_versions`."""
        return self._broker.resource_versions(path)

    def set_resource(self, path: str, value: Secret, expected: int) -> int:
        """As `Broker.set_resource`."""
        return self._changed().set_resource(path, value, expected)

    def delete_resource(self, path: str) -> None:
        """As `Broker.delete_resource`."""
        self._changed().delete_resource(path)

    def policy(self, kind: str, policy_id: str) -> tuple[int, str] | None:
        """As `Broker.policy`."""
        return self._broker.policy(kind, policy_id)

    def set_policy(self, kind: str, policy_id: str, text: bytes, expected: int) -> int:
        """As `Broker.set_policy`."""
        return self._changed().set_policy(kind, policy_id, text, expected)

    def remove_policy(self, kind: str, policy_id: str) -> None:
        """As `Broker.remove_policy`."""
        self._changed().remove_policy(kind, policy_id)

    def register(self, message: Mapping[str, Any]) -> None:
        """As `Broker.register`."""
        self._changed().register(message)

    def set_values(self, values: Mapping[str, Any], expires: datetime | None) -> None:
        """As `Broker.set_values`."""
        self._changed().set_values(values, expires)

    def withdraw(self, name: str) -> None:
        """As `Broker.withdraw`."""
        self._changed().withdraw(name)

    def init_data(self) -> Mapping[str, str]:
        """As `Broker.init_data`."""
        return self._broker.init_data()

    def register_init_data(self, name: str, owner: str, raw: bytes) -> None:
        """As `Broker.register_init_data`."""
        self._changed().register_init_data(name, owner, raw)

    def remove_init_data(self, name: str) -> None:
        """As `Broker.remove_init_data`."""
        self._changed().remove_init_data(name)

    def close(self) -> None:
        """As `Broker.close`."""
        self._broker.close()
