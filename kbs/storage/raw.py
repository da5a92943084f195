"""What a store that keeps bytes as they are offers to one that seals them, and the rules all such stores share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from kbs.errors import StorageUnavailable, VersionConflict
from kbs.storage.model import KeyValueStore

DAMAGED: Final = "damaged"
"""Member of an entry's meta, and the only one, when the record's own meta cannot be read; `get` raises for it."""


class RawStore(KeyValueStore, Protocol):
    """A `KeyValueStore` that tells the writer the version before it has the value.

    A seal binds the version, and only the transaction that writes knows it for sure.
    """

    def put_with(
        self,
        namespace: str,
        key: str,
        make: Callable[[int], bytes],
        *,
        meta: Mapping[str, str],
        expected: int | None = None,
    ) -> int:
        """As `put`, the value being `make(version)`, made inside the transaction. If it raises, nothing is written."""

    def rewrite(self, namespace: str, key: str, version: int, remake: Callable[[bytes], bytes]) -> bool:
        """Replace the stored bytes of one version by `remake(bytes)`, in one transaction; False if it is not kept.

        For a change of the sealing key only: number, meta and meaning of the record stay.
        """


def check_expected(expected: int | None, current: int) -> None:
    """Settle a compare-and-set. `current` is 0 when the key does not exist now.

    Raises:
        VersionConflict: the version is not the expected one.
    """
    if expected is not None and expected != current:
        raise VersionConflict("the record was changed by somebody else, or is not there")


def encode_meta(meta: Mapping[str, str]) -> bytes:
    """Canonical JSON of meta: sorted members, ASCII. The same members always give the same bytes.

    Raises:
        TypeError: a name or a value that is no text.
    """
    parts: list[object] = [*meta, *meta.values()]
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("meta holds text members only")
    return json.dumps(dict(meta), sort_keys=True, separators=(",", ":")).encode("ascii")


def decode_meta(raw: bytes | None) -> dict[str, str] | None:
    """Read what `encode_meta` wrote; None if it did not write this."""
    try:
        meta = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(meta, dict) or not all(isinstance(text, str) for text in meta.values()):
        return None
    return meta


def damaged(namespace: str, key: str, version: int, what: str) -> StorageUnavailable:
    """The error for one record that cannot be served; the others are not touched by it."""
    return StorageUnavailable(
        "a stored record is damaged",
        operator_detail=f"record {namespace}/{key} version {version}: {what}",
    )
