"""Values by label on a token: data objects, or generic secret keys as the reference's plugin makes them.

A write makes a new object and destroys the older ones then, so that a broker that dies between leaves the old value or
the new; a number in the object tells which is which. Two writers at once leave the value of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, exceptions

from kbs.errors import MalformedMessage
from kbs.plugins.pkcs11.token import Pkcs11Token, outage

_APPLICATION: Final = "kbs/"
_SEQUENCE: Final = 8  # octets
_MOST: Final = 1 << 20  # octets of one value
_MOST_NAMES: Final = 10_000
_UNFIT: Final = (
    exceptions.AttributeValueInvalid,
    exceptions.DataLenRange,
    exceptions.DeviceMemory,
    exceptions.KeySizeRange,
    exceptions.TemplateInconsistent,
)


class Kind(Enum):
    """How a value is kept."""

    DATA = ObjectClass.DATA
    SECRET_KEY = ObjectClass.SECRET_KEY


class TokenObjects:
    """Values of one kind. Safe from several threads.

    Raises:
        StorageUnavailable: the token.
    """

    def __init__(self, token: Pkcs11Token, kind: Kind) -> None:
        self._token = token
        self._kind = kind

    def get(self, label: str) -> bytes | None:
        """The value; None: there is none."""

        def read(session: pkcs11.Session) -> bytes | None:
            found = [(_sequence(self._kind, each), bytes(each[Attribute.VALUE])) for each in self._find(session, label)]
            return max(found)[1] if found else None

        return self._token.use(read)

    def put(self, label: str, value: bytes) -> None:
        """Make or replace.

        Raises:
            MalformedMessage: nothing, too much, or more than this token takes.
        """
        if not 0 < len(value) <= _MOST:
            raise MalformedMessage(f"a token keeps 1 to {_MOST} octets")

        def write(session: pkcs11.Session) -> bool:
            older = self._find(session, label)
            number = 1 + max((_sequence(self._kind, each) for each in older), default=0)
            try:
                session.create_object(_template(self._kind, label, value, number))
            except _UNFIT:
                return False
            _destroy(older)
            return True

        if not self._token.use(write):
            raise MalformedMessage("the token does not take a value of this size")

    def delete(self, label: str) -> bool:
        """False: there was none."""

        def remove(session: pkcs11.Session) -> bool:
            found = self._find(session, label)
            _destroy(found)
            return bool(found)

        return self._token.use(remove)

    def labels(self) -> Sequence[str]:
        """All labels, sorted, each once.

        Raises:
            MalformedMessage: too many.
        """

        def read(session: pkcs11.Session) -> set[str]:
            return {str(each[Attribute.LABEL]) for each in self._find(session, None)}

        found = self._token.use(read)
        if len(found) > _MOST_NAMES:
            raise MalformedMessage("the token has too many objects to list")
        return sorted(found)

    def _find(self, session: pkcs11.Session, label: str | None) -> Sequence[Any]:
        wanted: dict[Attribute, Any] = {Attribute.CLASS: self._kind.value, Attribute.TOKEN: True}
        if label is not None:
            wanted[Attribute.LABEL] = label
        found = list(session.get_objects(wanted))
        return [each for each in found if self._kind is Kind.SECRET_KEY or _sequence(self._kind, each)]


def find_key(session: pkcs11.Session, kind: ObjectClass, label: str) -> Any:
    """The one RSA key of that label.

    Raises:
        StorageUnavailable: none, or several.
    """
    wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.RSA, Attribute.LABEL: label}
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise outage(f"{len(found)} RSA keys of kind {kind.name} have the label of lookup_label, expected one")
    return found[0]


def _template(kind: Kind, label: str, value: bytes, number: int) -> dict[Attribute, Any]:
    shared = {Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.LABEL: label, Attribute.VALUE: value}
    if kind is Kind.DATA:
        return {**shared, Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: f"{_APPLICATION}{number}"}
    key = {Attribute.KEY_TYPE: KeyType.GENERIC_SECRET, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
    return {
        **shared,
        **key,
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.ID: number.to_bytes(_SEQUENCE, "big"),
    }


def _sequence(kind: Kind, found: Any) -> int:
    """The number in an object; 0: one that was not made here."""
    try:
        if kind is Kind.DATA:
            text = str(found[Attribute.APPLICATION])
            number = text.removeprefix(_APPLICATION)
            own = text.startswith(_APPLICATION) and number.isascii() and number.isdecimal() and len(number) < 19
            return int(number) if own else 0
        octets = bytes(found[Attribute.ID])
    except exceptions.AttributeTypeInvalid:
        return 0
    return int.from_bytes(octets, "big") if len(octets) == _SEQUENCE else 0


def _destroy(objects: Sequence[Any]) -> None:
    for each in objects:
        each.destroy()
