"""A PKCS#11 token that one broker process is logged in to.

The library underneath starts modules without locks of their own, so calls to one module go one at a time. A session
that the token no longer knows (removed and put back, module started anew) is opened again once; a forked process starts
the module for itself. A PIN that was refused is not tried again before its file changes: tokens lock after a few tries.
Source: PKCS #11 Cryptographic Token Interface Base Specification 2.40, 5.4 and 5.6.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import exceptions

from kbs.errors import ConfigInvalid, StorageUnavailable

_T = TypeVar("_T")
_LOST: Final = (
    exceptions.DeviceError,
    exceptions.DeviceRemoved,
    exceptions.SessionClosed,
    exceptions.SessionHandleInvalid,
    exceptions.SlotIDInvalid,
    exceptions.TokenNotPresent,
    exceptions.TokenNotRecognised,
    exceptions.UserNotLoggedIn,
)
_REFUSED: Final = (
    exceptions.PinExpired,
    exceptions.PinIncorrect,
    exceptions.PinInvalid,
    exceptions.PinLenRange,
    exceptions.PinLocked,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """module: the vendor's shared library. slot_index: among slots that hold a token. token_label: instead of it."""

    module: Path
    pin_file: Path
    slot_index: int = 0
    token_label: str | None = None


class _Module:
    """A shared library, started once per process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._started: int | None = None

    def start(self, path: str) -> Any:
        library = pkcs11.lib(path)
        if self._started not in (None, os.getpid()):
            with suppress(pkcs11.PKCS11Error):  # a forked process must not use what its parent started
                library.finalize()
            library.initialize()
        self._started = os.getpid()
        return library


class _Modules:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, _Module] = {}

    def of(self, path: str) -> _Module:
        with self._lock:
            return self._found.setdefault(path, _Module())


_MODULES: Final = _Modules()
"""A process has a module once, whoever uses it."""


class Pkcs11Token:
    """Runs calls in a session that is logged in. Nothing is loaded before the first."""

    def __init__(self, settings: TokenSettings, data: Path, where: str) -> None:
        """data: folder that relative paths are under.

        Raises:
            ConfigInvalid: no such module, or no slot of that index.
        """
        self._settings = settings
        self._module = str(data / settings.module)
        self._pin = data / settings.pin_file
        if not Path(self._module).is_file():
            raise ConfigInvalid(f"settings: {where}.module: no file {self._module}")
        if settings.slot_index < 0:
            raise ConfigInvalid(f"settings: {where}.slot_index: 0 or more")
        self._shared = _MODULES.of(self._module)
        self._session: tuple[int, pkcs11.Session] | None = None
        self._refused: tuple[int, int] | None = None

    def use(self, act: Callable[[pkcs11.Session], _T]) -> _T:
        """What `act` returns; it may run twice. It may raise `PKCS11Error`, which counts as an outage.

        Raises:
            StorageUnavailable: no module, token or session, PIN refused, or the token fails.
        """
        with self._shared.lock:
            try:
                try:
                    return act(self._current())
                except _LOST:
                    self._session = None
                    return act(self._current())
            except pkcs11.PKCS11Error as err:
                self._session = None
                raise outage(type(err).__name__) from None

    def _current(self) -> pkcs11.Session:
        if self._session is None or self._session[0] != os.getpid():
            self._session = (os.getpid(), self._open())
        return self._session[1]

    def _open(self) -> pkcs11.Session:
        token = self._find(self._shared.start(self._module))
        pin, state = self._read_pin()
        if state == self._refused:
            raise outage("the PIN was refused, and is not tried again before its file changes")
        try:
            session: pkcs11.Session = token.open(rw=True, user_pin=pin)
        except exceptions.UserAlreadyLoggedIn:  # another user of this token in this process; log-ins are the process's
            session = token.open(rw=True)
        except _REFUSED as err:
            self._refused = state
            raise outage(f"the log-in is refused: {type(err).__name__}") from None
        return session

    def _find(self, library: Any) -> Any:
        tokens = [slot.get_token() for slot in library.get_slots(token_present=True)]
        if self._settings.token_label is not None:
            tokens = [token for token in tokens if token.label == self._settings.token_label]
            if len(tokens) != 1:
                raise outage(f"{len(tokens)} tokens have that label, expected one")
            return tokens[0]
        if self._settings.slot_index >= len(tokens):
            raise outage(f"{len(tokens)} slots hold a token, none has the index {self._settings.slot_index}")
        return tokens[self._settings.slot_index]

    def _read_pin(self) -> tuple[str, tuple[int, int]]:
        """The PIN, and what tells one state of its file from another."""
        try:
            about = self._pin.stat()
            return self._pin.read_text(encoding="utf-8").rstrip("\r\n"), (about.st_mtime_ns, about.st_ino)
        except OSError as err:
            raise outage(f"{self._pin}: {err.strerror}") from None
        except UnicodeDecodeError:
            raise outage(f"{self._pin} is no text") from None


def outage(what: str) -> StorageUnavailable:
    """what: a kind of failure; never the PIN or a value."""
    return StorageUnavailable("the token of this resource does not answer", operator_detail=f"PKCS#11: {what}")
