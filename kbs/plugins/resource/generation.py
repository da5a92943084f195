"""Resources that nobody writes: random bytes, made when an allowed guest first asks, or by an administrator's wish.

Exactly one caller makes a value, by compare-and-set in the store; all others get that one. What a key is bound to is
part of its name: with `bind`, the middle segment must be a claim of the asking guest, whatever the policy says besides.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

from kbs.attestation.ear import ANNOTATED_EVIDENCE, find
from kbs.clock import Clock
from kbs.config import GeneratedSettings
from kbs.errors import ConfigInvalid, MalformedMessage, ResourceNotFound, StorageUnavailable, VersionConflict
from kbs.plugins.resource.escrow import load_escrow_key
from kbs.plugins.resource.model import Backend
from kbs.protocol import jwe
from kbs.protocol.resource_path import ResourcePath
from kbs.protocol.tee_key import TeeKey
from kbs.secret import Secret
from kbs.storage.model import Record

GENERATED: Final = "generated"
"""Member of a version's meta: how it was made, `OCTETS ENCODING`."""
ESCROW: Final = "escrow"
"""Member of a version's meta: the copy sealed to the administrator, JWE."""
_LEAST, _MOST = 16, 4096  # octets
_SEGMENT: Final = re.compile(r"\*|[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
_INIT_DATA: Final = f"/submods/cpu0/{ANNOTATED_EVIDENCE}/init_data"

Encoding = Literal["raw", "base64", "hex"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many random octets, and how they are written."""

    octets: int
    encoding: Encoding

    def __post_init__(self) -> None:
        if not _LEAST <= self.octets <= _MOST or self.encoding not in ("raw", "base64", "hex"):
            raise MalformedMessage(f"expected {_LEAST} to {_MOST} bytes, as raw, base64 or hex")

    def write(self, octets: bytes) -> Secret:
        """Octets in this encoding."""
        match self.encoding:
            case "hex":
                return Secret(octets.hex().encode())
            case "base64":
                return Secret(base64.b64encode(octets))
        return Secret(octets)

    def __str__(self) -> str:
        return f"{self.octets} {self.encoding}"


@dataclass(frozen=True, slots=True)
class Made:
    """A new value with its metadata."""

    value: Secret
    meta: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[resource.generate]]`."""

    pattern: tuple[str, str, str]
    shape: Shape
    bind: str | None
    escrow: TeeKey | None
    old_versions: timedelta
    most: int

    def fits(self, path: ResourcePath) -> bool:
        """Whether this rule is about that name."""
        return all(part in ("*", name) for part, name in zip(self.pattern, _segments(path), strict=True))

    def may_begin_with(self, prefix: str) -> bool:
        """Whether a name of this rule can begin with a store's prefix."""
        parts = [part for part in prefix.split("/") if part]
        return all(mine in ("*", theirs) for mine, theirs in zip(self.pattern, parts, strict=False))

    def check_store(self, prefix: str, *, creates_once: bool) -> None:
        """Refuse another store than the broker's own where it cannot do what the rule needs.

        Raises:
            ConfigInvalid: see above.
        """
        rule = f"settings: resource.generate: {'/'.join(self.pattern)}"
        if not creates_once:
            raise ConfigInvalid(f"{rule}: the store of {prefix!r} cannot make a value exactly once")
        if self.escrow is not None or self.old_versions:
            raise ConfigInvalid(f"{rule}: escrow and old versions need the broker's own store, not that of {prefix!r}")

    def check_bound(self, path: ResourcePath, claims: Mapping[str, Any]) -> None:
        """Refuse a guest that the name is not bound to. To it such a name is one that does not exist.

        Raises:
            ResourceNotFound: the claim is absent, no text, or another.
        """
        if self.bind is None:
            return
        claim = find(claims, self.bind)
        if isinstance(claim, str) and claim:
            named = path.type.encode()
            hashed = hashlib.sha256(claim.encode()).hexdigest().encode()
            if hmac.compare_digest(named, claim.encode()) or hmac.compare_digest(named, hashed):
                return
        raise ResourceNotFound(
            f"no resource {path}", operator_detail=f"resource {path} is bound to another {self.bind} than this guest's"
        )


class Generation:
    """Makes values by rules. Safe from several threads and processes, as far as the store's compare-and-set is."""

    def __init__(self, rules: Sequence[Rule], clock: Clock, random: Callable[[int], bytes]) -> None:
        self.rules = rules
        self._clock = clock
        self._random = random

    def rule(self, path: ResourcePath) -> Rule | None:
        """The first rule for a name."""
        for rule in self.rules:
            if rule.fits(path):
                return rule
        return None

    def make(self, path: ResourcePath, shape: Shape | None, before: Mapping[str, str] | None, *, author: str) -> Made:
        """A value by a shape, by that of the version before (its meta), or by the rule for this name.

        Raises:
            MalformedMessage: none of these, or the version before was not generated.
        """
        rule = self.rule(path)
        if before is not None:
            shape = _shape_of(before) or shape
            if shape is None:
                raise MalformedMessage("the current version was not generated: say how many bytes")
        shape = shape or (None if rule is None else rule.shape)
        if shape is None:
            raise MalformedMessage("no rule for this name: say how many bytes")
        value = shape.write(self._random(shape.octets))
        meta = {"author": author, "time": self._clock().isoformat(), "size": str(len(value)), GENERATED: str(shape)}
        if rule is not None and rule.escrow is not None:
            meta[ESCROW] = jwe.seal(rule.escrow, value.reveal(), random=self._random).decode("ascii")
        return Made(value, meta)

    def first(self, rule: Rule, backend: Backend, path: ResourcePath) -> Record:
        """Make the first value, or take the one of whoever was faster.

        Raises:
            StorageUnavailable: the store, or `most` of them exist.
        """
        name = str(path)
        if self._count(rule, backend) >= rule.most:
            detail = f"resource.generate {'/'.join(rule.pattern)}: {rule.most} exist, no more are made"
            raise StorageUnavailable("no more of these resources are made", operator_detail=detail)
        made = self.make(path, None, None, author="first use")
        try:
            version = backend.put(name, made.value.reveal(), meta=made.meta, expected=0)
        except VersionConflict:
            record = backend.get(name)
            if record is None:  # made and deleted in this moment: whoever asks next begins anew
                raise StorageUnavailable("the resource was deleted while it was made") from None
            return record
        return Record(name, version, made.meta, made.value.reveal())

    def past(self, rule: Rule, backend: Backend, name: str, wanted: str) -> Record | None:
        """A version by number: the current one, or one that was replaced not longer ago than the rule allows."""
        if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 10):
            return None
        number = int(wanted)
        current = backend.get(name)
        if current is None or number == current.version:
            return current
        after = backend.get(name, number + 1)  # not from a list: its time must be authentic
        if after is None or not rule.old_versions:
            return None
        replaced = datetime.fromisoformat(after.meta["time"])
        return backend.get(name, number) if self._clock() < replaced + rule.old_versions else None

    @staticmethod
    def _count(rule: Rule, backend: Backend) -> int:
        fixed = "/".join(rule.pattern).split("*", 1)[0]
        parts = (entry.key.split("/") for entry in backend.entries(fixed))
        return sum(all(mine in ("*", name) for mine, name in zip(rule.pattern, each, strict=False)) for each in parts)


def generation_rules(settings: Sequence[GeneratedSettings], data: Path) -> Sequence[Rule]:
    """Rules from settings.

    Raises:
        ConfigInvalid: a path, size, claim or key that cannot work; the text names the rule.
    """
    return tuple(_rule(each, f"settings: resource.generate[{number}]", data) for number, each in enumerate(settings))


def _rule(settings: GeneratedSettings, where: str, data: Path) -> Rule:
    pattern = tuple(settings.path.split("/"))
    if len(pattern) != 3 or not all(_SEGMENT.fullmatch(part) for part in pattern):
        raise ConfigInvalid(f"{where}.path: expected REPOSITORY/TYPE/TAG, each a name or *")
    try:
        shape = Shape(settings.bytes, settings.encoding)
    except MalformedMessage as err:
        raise ConfigInvalid(f"{where}: {err}") from None
    if settings.bind is not None and settings.bind != "init_data" and not settings.bind.startswith("/"):
        raise ConfigInvalid(f'{where}.bind: "init_data" or a JSON pointer')
    if settings.bind is not None and pattern[1] != "*":
        raise ConfigInvalid(f"{where}.bind: TYPE in the path must be *, it is what the name is bound to")
    if settings.old_versions_seconds < 0 or settings.most < 1:
        raise ConfigInvalid(f"{where}: old_versions_seconds must not be negative, most must be positive")
    return Rule(
        pattern=pattern,
        shape=shape,
        bind=_INIT_DATA if settings.bind == "init_data" else settings.bind,
        escrow=None if settings.escrow is None else load_escrow_key(data / settings.escrow),
        old_versions=timedelta(seconds=settings.old_versions_seconds),
        most=settings.most,
    )


def _shape_of(meta: Mapping[str, str]) -> Shape | None:
    octets, _, encoding = meta.get(GENERATED, "").partition(" ")
    return Shape(int(octets), cast(Encoding, encoding)) if octets.isdigit() else None


def _segments(path: ResourcePath) -> tuple[str, str, str]:
    return path.repository, path.type, path.tag
