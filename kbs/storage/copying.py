"""Moves rules and resources from one store to another: every version with its number, sealed bytes as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

from kbs.errors import StorageUnavailable
from kbs.storage.model import Record
from kbs.storage.raw import RawStore
from kbs.storage.sealed import SealingKeys, check_seal


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a store holds of one key, also of one that was deleted: its numbers go on in the copy.

    last: number of the last version there ever was. live: whether it exists now.
    """

    namespace: str
    key: str
    last: int
    live: bool
    versions: Sequence[Record] = field(repr=False)


class Copyable(RawStore, Protocol):
    """A `RawStore` that can be read and filled as a whole."""

    def kept(self) -> Iterator[Kept]:
        """Everything, by namespace and key."""

    def fill(self, content: Iterable[Kept]) -> None:
        """Take over everything, in one transaction.

        Raises:
            StorageUnavailable: the store holds something, or something else went wrong; then it is as it was.
        """


@dataclass(frozen=True, slots=True)
class Copied:
    """How much was copied."""

    keys: int
    versions: int


def copy(source: Copyable, target: Copyable, keys: SealingKeys, seen: Callable[[Kept], None]) -> Copied:
    """Fill an empty store from another; each record is opened before it is written, and read again afterwards.

    Args:
        keys: those that the target's broker has.
        seen: told of each key, for a progress bar.

    Raises:
        StorageUnavailable: a record that these keys do not open, a target that is not empty, a source that somebody
            changed meanwhile. The target is as it was; except when it does not hold what was written.
    """
    before = source.change_token()
    count, versions = 0, 0

    def checked() -> Iterator[Kept]:
        nonlocal count, versions
        for one in source.kept():
            for record in one.versions:
                check_seal(keys, one.namespace, record)
            yield one
            seen(one)
            count += 1
            versions += len(one.versions)
        if source.change_token() != before:
            raise StorageUnavailable(
                "the store was changed while it was copied", operator_detail="stop its brokers and copy again"
            )

    target.fill(checked())
    if any(one != other for one, other in zip_longest(source.kept(), target.kept())):
        raise StorageUnavailable(
            "the copy is not what was copied", operator_detail="a broker writes to one of the stores; begin again"
        )
    return Copied(count, versions)


def refuse_to_fill() -> StorageUnavailable:
    """The error for a target that holds something."""
    return StorageUnavailable(
        "the target holds records already", operator_detail="nothing was copied: the target is not empty"
    )
