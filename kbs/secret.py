"""A wrapper that keeps secret bytes out of reprs, logs and JSON."""

from __future__ import annotations

from typing import NoReturn, final


@final
class Secret:
    """Secret bytes. `repr` and `str` show dots; the only exit is `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves. Callers keep them no longer than they must."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "Secret(•••)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")
