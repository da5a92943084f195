"""Resources on a PKCS#11 token, as private data objects with the resource's name for a label (extra `pkcs11`).

What a token keeps so is as safe as its access control: data objects leave it in clear, to whoever is logged in. There
are no versions, and nothing there creates exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbs import config
from kbs.plugins.pkcs11.objects import Kind, TokenObjects
from kbs.plugins.pkcs11.token import Pkcs11Token, TokenSettings
from kbs.plugins.resource.backends.cloud import checked_name, is_name, no_numbers
from kbs.plugins.resource.model import StoreContext
from kbs.storage.model import Entry, Record


def build(context: StoreContext) -> Pkcs11Backend:
    """A store from its options. The token is not asked before the first request.

    Raises:
        ConfigInvalid: unknown options, or no such module.
    """
    settings = config.structure(context.options, TokenSettings, context.where)
    token = Pkcs11Token(settings, context.data, context.where)
    return Pkcs11Backend(TokenObjects(token, Kind.DATA), context.prefix)


class Pkcs11Backend:
    """`Backend` over one token."""

    remote = True
    creates_once = False

    def __init__(self, objects: TokenObjects, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    def get(self, name: str, version: int | None = None) -> Record | None:
        """The value there is."""
        if version is not None:
            raise no_numbers()
        value = self._objects.get(checked_name(name))
        return None if value is None else Record(name, 0, {}, value)

    def put(self, name: str, value: bytes, *, meta: object, expected: int | None = None) -> int:
        """Replace. meta has no place here: the audit log says who wrote."""
        del meta
        place = checked_name(name)
        if expected is not None:
            raise no_numbers()
        self._objects.put(place, value)
        return 0

    def delete(self, name: str, *, expected: int | None = None) -> bool:
        """Destroy the object."""
        place = checked_name(name)
        if expected is not None:
            raise no_numbers()
        return self._objects.delete(place)

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """Names below this store's prefix."""
        labels = (label for label in self._objects.labels() if label.startswith(self._prefix))
        return [Entry(label, 0, {}) for label in labels if label.startswith(prefix) and is_name(label)]

    def history(self, name: str) -> Sequence[Entry]:
        """The current value alone."""
        return [] if self.get(name) is None else [Entry(name, 0, {})]
