"""The one door through which a broker reaches reference values: in process, or over the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from rvps.model import (
    Expiring,
    Preview,
    ReferenceValue,
    Snapshot,
    StatedValues,
    StatementStatus,
    Submitted,
    Why,
)
from rvps.publishers.model import NOBODY, Publishers
from rvps.publishers.watch import PublishersOnDisk
from rvps.remote.http import RemoteSettings
from rvps.remote.provider import RemoteProvider
from rvps.service import EmbeddedProvider
from rvps.statements.log import KeyValueStore
from rvps.statements.witness import WitnessFile

__all__ = [
    "NOBODY",
    "ReferenceValueProvider",
    "RemoteProvider",
    "RemoteSettings",
    "embedded",
    "publishers_on_disk",
    "remote",
]


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
        """Take one RVPS message (rvps.md 3: `version`, `type`, `payload`), vouched for by the authenticated `issuer`; a
        type that is signed must verify, whoever sends it. Durable when it returns; all of its values or none."""

    def withdraw(self, name: str, *, issuer: str, at: datetime) -> bool:
        """Remove one name at once. False if there was none."""

    def submit(self, message: Mapping[str, Any], at: datetime) -> Submitted:
        """Take one signed message: a statement, an approval or a revocation. Its signature is what vouches for it."""

    def dry_run(self, message: Mapping[str, Any], at: datetime, *, issuer: str = "") -> Preview:
        """What `register` or `submit` would do. Stores nothing; raises what they would raise."""

    def revoke(self, statement: str, *, reason: str, issuer: str, at: datetime) -> StatementStatus:
        """An administrator makes one statement void at once; `statement` as for `statement`."""

    def statements(self, at: datetime) -> Sequence[StatementStatus]:
        """Every kept statement, newest first."""

    def statement(self, statement: str, at: datetime) -> StatementStatus | None:
        """One statement by id, by digest, or by a beginning of its digest (8 digits or more) that is unique."""

    def signed_message(self, digest: str) -> bytes | None:
        """The signed bytes as they arrived, by `Step.message`: proves later who signed."""

    def why(self, name: str, value: Any | None, at: datetime) -> Why:
        """Who stated a value, under which statement, from which artifacts, until when. value None: whatever is said."""

    def stated(self, statement: str) -> StatedValues | None:
        """All that one statement says; `statement` as for `statement`. None: there is none, or it is not kept."""

    def names_of(self, value: Any) -> Sequence[str]:
        """Names under which kept statements state `value`, alone or in a list, or call it known bad; sorted, bounded
        by `rvps.statements.explaining.MAX_NAMES_OF`."""

    def expiring(self, at: datetime, within: timedelta) -> Sequence[Expiring]:
        """Statements in force that have expired or will within that time, the first to end first."""

    def missed(self, names: Iterable[str]) -> None:
        """Count names that a policy asked for and did not get."""

    def misses(self) -> Mapping[str, int]:
        """Names asked for and not found since the start, with how often; a bounded number of them."""


def embedded(
    store: KeyValueStore,
    *,
    conflict: type[Exception],
    unavailable: type[Exception],
    publishers: Callable[[], Publishers] = lambda: NOBODY,
    witness: Path | None = None,
) -> ReferenceValueProvider:
    """A provider in this process.

    Args:
        store: anything that fits the small port in `rvps.statements.log`; the broker's store does.
        conflict: what that store raises for a lost compare-and-set.
        unavailable: what it raises when it is down or full; callers here see `ProviderUnavailable`.
        publishers: who may send signed messages; asked for each, so that a file that is read again counts at once.
        witness: a file outside the store that remembers its newest event: a store that was set back is not used.
    """
    seen = None if witness is None else WitnessFile(witness)
    return EmbeddedProvider(store, conflict=conflict, unavailable=unavailable, publishers=publishers, witness=seen)


def remote(settings: RemoteSettings) -> RemoteProvider:
    """A provider in another process, whose newest snapshot is kept here. Close it at the end.

    Raises:
        SettingsUnacceptable: a token that is none, or roots that do not load.
    """
    return RemoteProvider(settings)


def publishers_on_disk(path: Path) -> Callable[[], Publishers]:
    """For `embedded`: the publishers of a TOML file (see `rvps.publishers.model`), read again when it changes.

    Raises:
        SettingsUnacceptable: it is not there, or says what cannot be used.
    """
    return PublishersOnDisk(path, required=True)
