"""How one version of a policy lies in the store: text and compiled form in the value, who and why in the meta.

One record per change, so that a change is whole or absent. A removal is a version of its own, without a text: that
nobody wants a policy any more is then on record and can be taken back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from kbs.errors import StorageUnavailable
from kbs.policy.engine import Policy, PolicyKind
from kbs.policy.rego_sources import sha256_hex
from kbs.storage.model import Entry, Record

REMOVED: Final = "removed"
"""`origin` of a version that ended a policy."""

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BII")  # format, octets of the text, octets of the module
_MAX_WARNINGS: Final = 16
_MAX_WARNING: Final = 300  # characters


@dataclass(frozen=True, slots=True)
class Change:
    """Who sets a policy and why; `author` is the administrator's subject and token id.

    tests: SHA-256 of the tests that came with it and passed; empty without.
    """

    author: str
    at: datetime
    reason: str = ""
    tests: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one policy, without its text. version 0: the shipped one, which nobody set.

    origin: as in `Policy`, or `removed`. warnings: what its author was told when it was set. tests: SHA-256 of those
        that it passed when it was set, empty where none came with it.
    """

    id: str
    version: int
    digest: str
    origin: str
    author: str
    time: str  # RFC 3339, empty for the shipped one
    reason: str
    opa_version: str
    warnings: tuple[str, ...] = ()
    tests: str = ""


def encoded(
    policy: Policy, change: Change, opa_version: str, warnings: tuple[str, ...] = ()
) -> tuple[bytes, dict[str, str]]:
    """Value and meta of a record."""
    text, wasm = policy.text.encode("utf-8"), policy.wasm or b""
    meta = {
        "digest": policy.digest,
        "origin": policy.origin,
        "author": change.author,
        "time": change.at.isoformat(),
        "reason": change.reason,
        "opa_version": opa_version,
        "wasm_sha256": sha256_hex(wasm),
    }
    if change.tests:
        meta["tests"] = change.tests
    if warnings:
        meta["warnings"] = json.dumps([warning[:_MAX_WARNING] for warning in warnings[:_MAX_WARNINGS]])
    return _HEAD.pack(_FORMAT, len(text), len(wasm)) + text + wasm, meta


def with_tests(change: Change, tests: bytes | None) -> Change:
    """The change, and which tests were passed."""
    return change if tests is None else replace(change, tests=sha256_hex(tests))


def removal(change: Change) -> tuple[bytes, dict[str, str]]:
    """Value and meta of a version that ends a policy."""
    meta = {"origin": REMOVED, "author": change.author, "time": change.at.isoformat(), "reason": change.reason}
    return b"", meta


def is_removal(record: Record) -> bool:
    """Whether a record that the store opened, so that its meta is authentic, ends a policy."""
    return record.meta.get("origin") == REMOVED and not record.value


def opened(kind: PolicyKind, record: Record) -> Policy:
    """Rebuild what `encoded` made.

    Raises:
        StorageUnavailable: anything that does not add up.
    """
    try:
        form, text_size, wasm_size = _HEAD.unpack_from(record.value)
        body = record.value[_HEAD.size :]
        text, wasm = body[:text_size], body[text_size:]
        sound = (
            form == _FORMAT
            and len(wasm) == wasm_size
            and sha256_hex(text) == record.meta["digest"]
            and sha256_hex(wasm) == record.meta["wasm_sha256"]
        )
        if sound:
            return Policy(kind, text.decode("utf-8"), record.meta["digest"], wasm or None, record.meta["origin"])
    except (struct.error, KeyError, UnicodeDecodeError) as err:
        raise damaged(record) from err
    raise damaged(record)


def damaged(record: Record) -> StorageUnavailable:
    """The error for a record that cannot be used."""
    return StorageUnavailable(
        "a stored policy is damaged", operator_detail=f"{json.dumps(record.key)} version {record.version}"
    )


def version_of(entry: Entry | Record) -> Version:
    """What an entry says of itself; for people."""
    meta = entry.meta
    return Version(
        entry.key,
        entry.version,
        meta.get("digest", ""),
        meta.get("origin", ""),
        meta.get("author", ""),
        meta.get("time", ""),
        meta.get("reason", ""),
        meta.get("opa_version", ""),
        _warnings(meta),
        meta.get("tests", ""),
    )


def _warnings(meta: Mapping[str, str]) -> tuple[str, ...]:
    try:
        found: Any = json.loads(meta.get("warnings", "[]"))
    except (ValueError, RecursionError):
        return ()
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
