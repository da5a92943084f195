"""What a migration says and makes: one entry for every setting that was read, and the text of every file.

Nothing here holds bytes of a Secret: what is taken over from one is named, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from kbs.errors import MalformedMessage

_T = TypeVar("_T")
_MISSING: Final = object()


class Verdict(StrEnum):
    """What became of a setting."""

    OURS = "ours"
    NOT_NEEDED = "not needed"
    BY_HAND = "by hand"
    NOT_OFFERED = "not offered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.UNKNOWN: "nobody here knows what it means: nothing is written until somebody says that it may be left out",
    Verdict.REFUSED: "not taken over, because it is unsafe or could not work here",
    Verdict.BY_HAND: "taken over by you, because something is needed that the input does not have",
    Verdict.NOT_OFFERED: "this broker has nothing like it",
    Verdict.OURS: "taken over",
    Verdict.NOT_NEEDED: "has no counterpart and needs none",
}
"""In the order of the report: what asks for a person first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """source: file or object; setting: dotted path in it; ours: what it became, or empty; why: for people."""

    source: str
    setting: str
    verdict: Verdict
    ours: str
    why: str


@dataclass(frozen=True, slots=True)
class FileRef:
    """A key of a Secret or ConfigMap that the old broker had as a file. kind: `Secret` or `ConfigMap`."""

    kind: str
    name: str
    key: str


@dataclass(slots=True)
class Draft:
    """The new installation while it is put together.

    Attributes:
        entries: in the order in which the input was read.
        settings: of `kbs.toml`, section by section.
        tees: that the input speaks of, in its order.
        mounted: keys of Secrets and ConfigMaps that the settings name as files.
        public_files: name → bytes of public keys and certificates read from this machine.
        token_key, tls: Secrets' keys in place of those that `kbs k8s keys` makes. tls: certificate, then key.
        tls_ca: what clients of that certificate trust.
        hosts: names under which guests know the old broker.
        objects: for the controller.
        policies: file name → text that `objects` name; refused_policies: those that are not taken over.
        replicated: several brokers share a database.
        steps: commands and advice, in order.
    """

    namespace: str
    entries: list[Entry] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    tees: list[str] = field(default_factory=list)
    mounted: list[FileRef] = field(default_factory=list)
    public_files: dict[str, bytes] = field(default_factory=dict)
    token_key: FileRef | None = None
    tls: tuple[FileRef, FileRef] | None = None
    tls_ca: FileRef | None = None
    hosts: list[str] = field(default_factory=list)
    service_type: str | None = None
    objects: list[dict[str, Any]] = field(default_factory=list)
    policies: dict[str, str] = field(default_factory=dict)
    refused_policies: dict[str, str] = field(default_factory=dict)
    replicated: bool = False
    steps: list[str] = field(default_factory=list)

    def note(self, source: str, setting: str, verdict: Verdict, why: str, ours: str = "") -> None:
        """One more entry."""
        self.entries.append(Entry(source, setting, verdict, ours, why))

    def set(self, name: str, value: Any) -> str:
        """A setting of ours; returns how it is written in reports."""
        section, _, key = name.partition(".")
        self.settings.setdefault(section, {})[key] = value
        return name

    def tee(self, *names: str) -> None:
        """The input speaks of these."""
        self.tees += [name for name in names if name not in self.tees]

    def of(self, verdict: Verdict) -> list[Entry]:
        """All with one verdict."""
        return [each for each in self.entries if each.verdict is verdict]


class Table:
    """A table of the input whose members are taken one by one; what nobody took is unknown."""

    def __init__(self, draft: Draft, source: str, content: Mapping[str, Any], path: str = "") -> None:
        self.draft = draft
        self.source = source
        self.path = path
        self._left = dict(content)
        self._inner: list[Table] = []

    def name(self, member: str) -> str:
        """The dotted path of a member."""
        return f"{self.path}.{member}" if self.path else member

    def has(self, member: str) -> bool:
        """It is there and was not taken yet."""
        return member in self._left

    def take(self, member: str, kind: type[_T]) -> _T | None:
        """A member; None: it is not there, or null.

        Raises:
            MalformedMessage: it is of another type.
        """
        value = self._left.pop(member, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise MalformedMessage(f"{self.source}: {self.name(member)} is not of the type {_WORDS.get(kind, kind)}")
        return value

    def members(self) -> list[str]:
        """What nobody took yet."""
        return [*self._left]

    def peek(self, member: str) -> object:
        """A member, which stays untaken."""
        return self._left.get(member)

    def texts(self, member: str) -> list[str]:
        """A list of texts; empty where it is not there."""
        found = self.take(member, list) or []
        if not all(isinstance(each, str) for each in found):
            raise MalformedMessage(f"{self.source}: {self.name(member)} is not a list of texts")
        return [*found]

    def table(self, member: str) -> Table | None:
        """A table in it."""
        found = self.take(member, dict)
        return None if found is None else self.inner(found, member)

    def tables(self, member: str) -> list[Table]:
        """A list of tables."""
        found = self.take(member, list) or []
        if not all(isinstance(each, dict) for each in found):
            raise MalformedMessage(f"{self.source}: {self.name(member)} is not a list of tables")
        return [self.inner(each, f"{member}[{number}]") for number, each in enumerate(found)]

    def inner(self, content: Mapping[str, Any], member: str) -> Table:
        """A table that counts as in this one: what nobody takes of it is unknown too."""
        found = Table(self.draft, self.source, content, self.name(member))
        self._inner.append(found)
        return found

    def note(self, member: str, verdict: Verdict, why: str, ours: str = "") -> None:
        """What became of a member."""
        self.draft.note(self.source, self.name(member), verdict, why, ours)

    def note_all(self, verdict: Verdict, why: str, ours: str = "") -> None:
        """What became of the table as a whole."""
        self.draft.note(self.source, self.path, verdict, why, ours)

    def drop(self, verdict: Verdict, why: str, *members: str) -> None:
        """Take members that become nothing, each with the same words; those that are not there are no entry."""
        for member in members:
            if self._left.pop(member, _MISSING) is not _MISSING:
                self.note(member, verdict, why)

    def close(self) -> None:
        """What nobody took is unknown, here and in tables below."""
        for member in _leaves(self._left):
            self.note(member, Verdict.UNKNOWN, "not a setting of any version of the reference that is known here")
        self._left = {}
        for each in self._inner:
            each.close()


_WORDS: Final[Mapping[type, str]] = {str: "text", int: "integer", bool: "boolean", list: "list", dict: "table"}


def _leaves(content: Mapping[str, Any]) -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{name}.{each}" for each in _leaves(value))
        else:
            yield str(name)
