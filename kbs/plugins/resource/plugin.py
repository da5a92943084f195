"""Plugin `resource`: secrets by repository/type/tag; write-only for administrators (kbs-protocol 8.1).

Where a secret is kept is decided by its name alone: the store with the longest prefix, else the broker's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from kbs.clock import Clock
from kbs.errors import MalformedMessage, NameNotAllowed, ResourceNotFound
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginRequest
from kbs.plugins.resource.backends.key_value import KeyValueBackend
from kbs.plugins.resource.generation import ESCROW, GENERATED, Generation, Shape
from kbs.plugins.resource.model import Backend, StoreRefuses
from kbs.plugins.resource.upload_warnings import upload_warnings
from kbs.protocol.resource_path import ResourcePath
from kbs.protocol.resource_path import parse as parse_path
from kbs.secret import Secret
from kbs.storage.model import Entry, KeyValueStore, Record

_T = TypeVar("_T")
_NO_THIRD_SLASH = "; perhaps the URI lacks a third slash: in kbs://a/b/c guests take a for a host, write kbs:///a/b/c"
_GUARDS: Mapping[str, Guard] = {
    "GET": Guard(Access.TOKEN),
    "POST": Guard(Access.ADMIN, "resource.write"),
    "DELETE": Guard(Access.ADMIN, "resource.delete"),
}


class ResourcePlugin:
    """Secrets in the key-value store and in others by prefix. Bytes leave only through the release door."""

    def __init__(
        self,
        store: KeyValueStore,
        clock: Clock,
        external: Sequence[tuple[str, Backend]] = (),
        generation: Generation | None = None,
    ) -> None:
        """external: prefixes and stores, longest prefix first.

        Raises:
            ConfigInvalid: generated resources whose store cannot make them exactly once, or has no place for escrow.
        """
        self._own = KeyValueBackend(store)
        self._external = external
        self._generation = generation
        self._clock = clock
        self.blocks = any(backend.remote for _, backend in external)
        for rule in () if generation is None else generation.rules:
            for prefix, backend in external:
                if rule.may_begin_with(prefix):
                    rule.check_store(prefix, creates_once=backend.creates_once)

    def guards(self) -> Mapping[str, Guard]:
        """GET for guests; POST and DELETE for administrators."""
        return _GUARDS

    def handle(self, request: PluginRequest) -> PluginAnswer:
        """Read, write or delete one secret."""
        if request.method == "GET":
            return self._read(request)
        path = parse_path(request.segments)
        if request.method == "POST":
            version = self.write(path, request.body, author=request.author or "unknown", expected=request.expected)
            told = upload_warnings(path, request.body)
            return PluginAnswer(Secret(b""), version=version or None, action="write", warnings=told)
        backend = self._backend(str(path))
        if not _told(lambda: backend.delete(str(path), expected=request.expected)):
            raise ResourceNotFound(f"no resource {path}")
        return PluginAnswer(Secret(b""), action="delete")

    def write(self, path: ResourcePath, value: bytes, *, author: str, expected: int | None) -> int:
        """Write the next version; its number, 0 from a store without numbers."""
        meta = {"author": author, "time": self._clock().isoformat(), "size": str(len(value))}
        backend = self._backend(str(path))
        return _told(lambda: backend.put(str(path), value, meta=meta, expected=expected))

    def generate(self, path: ResourcePath, shape: Shape | None, *, author: str, rotate: bool) -> int:
        """Make random bytes the value, without anybody seeing them; the version's number.

        shape: None: as a rule for this name says, or as the current value was made. rotate: a next version of what was
        generated before; otherwise the first one.

        Raises:
            VersionConflict: there is one already, or it changed meanwhile. ResourceNotFound: nothing to rotate.
            MalformedMessage: nothing says how many octets.
        """
        if self._generation is None:
            raise MalformedMessage("this broker generates nothing")
        name, backend = str(path), self._backend(str(path))
        current = _told(lambda: backend.get(name)) if rotate else None
        if rotate and current is None:
            raise ResourceNotFound(f"no resource {path}")
        if current is not None and not current.version:
            raise MalformedMessage("the store of this resource keeps no versions: nothing there can be rotated")
        made = self._generation.make(path, shape, None if current is None else current.meta, author=author)
        expected = 0 if current is None else current.version
        return _told(lambda: backend.put(name, made.value.reveal(), meta=made.meta, expected=expected))

    def roll_back(self, path: ResourcePath, version: int, *, author: str, expected: int | None = None) -> int:
        """Make the bytes of a past version current again, as a new version; its number.

        expected: the version that must be current; None: whichever is.

        Raises:
            ResourceNotFound: no such resource or version. VersionConflict: another is current.
        """
        name, backend = str(path), self._backend(str(path))
        current = _told(lambda: backend.get(name))
        past = _told(lambda: backend.get(name, version))
        if current is None or past is None:
            raise ResourceNotFound(f"no version {version} of resource {path}")
        meta = {
            "author": author,
            "time": self._clock().isoformat(),
            "size": str(len(past.value)),
            "rolled_back_to": str(version),
            # what was true of these bytes is true of them again
            **{name: past.meta[name] for name in (GENERATED, ESCROW) if name in past.meta},
        }
        wanted = current.version if expected is None else expected
        return _told(lambda: backend.put(name, past.value, meta=meta, expected=wanted))

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names and metadata of all stores, never bytes. What one store holds below another's prefix is hidden."""
        found: list[Entry] = []
        for mounted, backend in (*self._external, ("", self._own)):
            if mounted.startswith(prefix) or prefix.startswith(mounted):
                listed = _told(lambda backend=backend: backend.entries(prefix))  # type: ignore[misc]
                found += [entry for entry in listed if self._backend(entry.key) is backend]
        return sorted(found, key=lambda entry: entry.key)

    def history(self, path: ResourcePath) -> Sequence[Entry]:
        """Kept versions of one secret.

        Raises:
            ResourceNotFound: no such resource.
        """
        backend = self._backend(str(path))
        found = _told(lambda: backend.history(str(path)))
        if not found:
            raise ResourceNotFound(f"no resource {path}")
        return found if "size" in found[-1].meta else _measured(found, _told(lambda: backend.get(str(path))))

    def _backend(self, name: str) -> Backend:
        for prefix, backend in self._external:
            if name.startswith(prefix):
                return backend
        return self._own

    def _read(self, request: PluginRequest) -> PluginAnswer:
        try:
            path = parse_path(request.segments)
        except NameNotAllowed as err:  # to a guest a name outside the grammar is one that does not exist
            hint = _NO_THIRD_SLASH if len(request.segments) == 2 else ""
            raise ResourceNotFound(f"{err}{hint}") from None
        name = str(path)
        try:
            record = self._found(path, name, request)
        except StoreRefuses as err:  # neither is what the broker itself may not read
            raise ResourceNotFound(f"no resource {path}", operator_detail=f"resource {path}: {err}") from None
        if record is None:
            raise ResourceNotFound(f"no resource {path}")
        return PluginAnswer(Secret(record.value), version=record.version or None)

    def _found(self, path: ResourcePath, name: str, request: PluginRequest) -> Record | None:
        backend = self._backend(name)
        rule = None if self._generation is None else self._generation.rule(path)
        if self._generation is None or rule is None:
            return backend.get(name)
        rule.check_bound(path, {} if request.guest is None else request.guest.claims)
        if request.guest is None:
            return backend.get(name)
        wanted = request.query.get("version")
        if wanted is not None:
            return self._generation.past(rule, backend, name, wanted)
        return backend.get(name) or self._generation.first(rule, backend, path)


def _measured(entries: Sequence[Entry], current: Record | None) -> Sequence[Entry]:
    """With the size of the current version, which other stores than the broker's own do not keep beside it."""
    if current is None:
        return entries
    size = {"size": str(len(current.value))}
    return [
        replace(entry, meta={**entry.meta, **size}) if entry.version == current.version else entry for entry in entries
    ]


def _told(ask: Callable[[], _T]) -> _T:
    """An administrator is told why a store refuses."""
    try:
        return ask()
    except StoreRefuses as err:
        raise NameNotAllowed(f"the store of this resource refuses: {err}") from None  # asking again would not help
