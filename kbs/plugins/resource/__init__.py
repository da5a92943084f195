"""Plugin `resource`: secrets by repository/type/tag, versioned; write-only for administrators (kbs-protocol 8.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbs.clock import Clock
from kbs.errors import NameNotAllowed, ResourceNotFound
from kbs.plugins.model import Access, Guard, PluginAnswer, PluginContext, PluginRequest
from kbs.protocol.resource_path import ResourcePath
from kbs.protocol.resource_path import parse as parse_path
from kbs.secret import Secret
from kbs.storage.model import Entry, KeyValueStore

NAMESPACE = "repository"

_GUARDS: Mapping[str, Guard] = {
    "GET": Guard(Access.TOKEN),
    "POST": Guard(Access.ADMIN, "resource.write"),
    "DELETE": Guard(Access.ADMIN, "resource.delete"),
}


class ResourcePlugin:
    """Keeps secrets in the key-value store. Bytes leave only through the release door."""

    blocks = False

    def __init__(self, store: KeyValueStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

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
            return PluginAnswer(Secret(b""), version=version, action="write")
        if not self._store.delete(NAMESPACE, str(path), expected=request.expected):
            raise ResourceNotFound(f"no resource {path}")
        return PluginAnswer(Secret(b""), action="delete")

    def write(self, path: ResourcePath, value: bytes, *, author: str, expected: int | None) -> int:
        """Write the next version; its number."""
        meta = {"author": author, "time": self._clock().isoformat(), "size": str(len(value))}
        return self._store.put(NAMESPACE, str(path), value, meta=meta, expected=expected)

    def roll_back(self, path: ResourcePath, version: int, *, author: str, expected: int | None = None) -> int:
        """Make the bytes of a past version current again, as a new version; its number.

        expected: the version that must be current; None: whichever is.

        Raises:
            ResourceNotFound: no such resource or version. VersionConflict: another is current.
        """
        current = self._store.get(NAMESPACE, str(path))
        past = self._store.get(NAMESPACE, str(path), version)
        if current is None or past is None:
            raise ResourceNotFound(f"no version {version} of resource {path}")
        meta = {
            "author": author,
            "time": self._clock().isoformat(),
            "size": str(len(past.value)),
            "rolled_back_to": str(version),
        }
        return self._store.put(
            NAMESPACE, str(path), past.value, meta=meta, expected=current.version if expected is None else expected
        )

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names and metadata, never bytes."""
        return self._store.entries(NAMESPACE, prefix)

    def history(self, path: ResourcePath) -> Sequence[Entry]:
        """Kept versions of one secret.

        Raises:
            ResourceNotFound: no such resource.
        """
        found = self._store.history(NAMESPACE, str(path))
        if not found or self._store.get(NAMESPACE, str(path)) is None:
            raise ResourceNotFound(f"no resource {path}")
        return found

    def _read(self, request: PluginRequest) -> PluginAnswer:
        try:
            path = parse_path(request.segments)
        except NameNotAllowed as err:  # to a guest a name outside the grammar is one that does not exist
            raise ResourceNotFound(str(err)) from None
        record = self._store.get(NAMESPACE, str(path))
        if record is None:
            raise ResourceNotFound(f"no resource {path}")
        return PluginAnswer(Secret(record.value), version=record.version)


def build(context: PluginContext) -> ResourcePlugin:
    """Entry point `kbs.plugins: resource`."""
    return ResourcePlugin(context.store, context.clock)
