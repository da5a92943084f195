"""The one door through which a broker reaches reference values: in process, or over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from rvps.model import ReferenceValue, Snapshot
from rvps.remote import RemoteProvider, RemoteSettings
from rvps.service import EmbeddedProvider
from rvps.store import KeyValueStore

__all__ = ["ReferenceValueProvider", "RemoteProvider", "RemoteSettings", "embedded", "remote"]


class ReferenceValueProvider(Protocol):
    """Register statements, query what is valid.

    Raises:
        rvps.errors.StatementUnacceptable: the statement is at fault; nothing was stored.
        rvps.errors.ProviderUnavailable: try later.
    """

    def snapshot(self, at: datetime) -> Snapshot:
        """Every value valid at `at`. Cheap when nothing changed: the same object is returned again."""

    def query(self, name: str, at: datetime) -> Any | None:
        """The value of one name, or None if none is valid at `at`."""

    def list(self, at: datetime) -> Sequence[ReferenceValue]:
        """Every stored value by name, expired ones too (for people)."""

    def register(self, message: Mapping[str, Any], *, issuer: str, at: datetime) -> Sequence[ReferenceValue]:
        """Take one RVPS message (rvps.md 3: `version`, `type`, `payload`), vouched for by the authenticated `issuer`.
        Durable when it returns; all of its values or none."""

    def withdraw(self, name: str, *, issuer: str, at: datetime) -> bool:
        """Remove one name at once. False if there was none."""


def embedded(
    store: KeyValueStore, *, conflict: type[Exception], unavailable: type[Exception]
) -> ReferenceValueProvider:
    """A provider in this process.

    Args:
        store: anything that fits the small port in `rvps.store`; the broker's store does.
        conflict: what that store raises for a lost compare-and-set.
        unavailable: what it raises when it is down or full; callers here see `ProviderUnavailable`.
    """
    return EmbeddedProvider(store, conflict=conflict, unavailable=unavailable)


def remote(settings: RemoteSettings) -> RemoteProvider:
    """A provider in another process, whose newest snapshot is kept here. Close it at the end.

    Raises:
        SettingsUnacceptable: a token that is none, or roots that do not load.
    """
    return RemoteProvider(settings)
