"""What the stores of cloud providers have in common: clients per process, limits, and words for what fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from kbs.errors import ConfigInvalid, MalformedMessage, NameNotAllowed, StorageUnavailable
from kbs.plugins.resource.model import StoreRefuses
from kbs.protocol.resource_path import parse as parse_path

_T = TypeVar("_T")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_NAMES: Final = 10_000


class PerProcess(Generic[_T]):
    """A client that is made when first asked for, anew in a forked process and after `drop`."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, _T] | None = None

    def __call__(self) -> _T:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._make())
            return self._made[1]

    def drop(self) -> None:
        """The next call makes another: credentials in files may have been renewed."""
        with self._lock:
            self._made = None


def check_endpoint(url: str, where: str) -> None:
    """Refuse an address that credentials must not travel to.

    Raises:
        ConfigInvalid: see above.
    """
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError:
        raise ConfigInvalid(f"settings: {where} is no address") from None
    plain = address.scheme == "http" and host in _LOOPBACK
    if not host or not (address.scheme == "https" or plain) or address.username or address.query or address.fragment:
        raise ConfigInvalid(f"settings: {where}: https://HOST, or http:// to this machine")


def check_timeout(seconds: float, where: str) -> None:
    """Raises `ConfigInvalid` for a deadline that is none."""
    if not 0 < seconds <= 60:
        raise ConfigInvalid(f"settings: {where}.timeout_seconds: more than 0, at most 60")


def check_value(value: bytes, most: int) -> None:
    """Refuse what the service would.

    Raises:
        MalformedMessage: nothing, or more octets than the service keeps.
    """
    if not 0 < len(value) <= most:
        raise MalformedMessage(f"the store of this resource keeps 1 to {most} octets")


def checked_name(name: str) -> str:
    """The grammar is checked again: a name that is none never goes out.

    Raises:
        StoreRefuses: no name of a resource.
    """
    try:
        return str(parse_path(name.split("/")))
    except NameNotAllowed:
        raise StoreRefuses("no name of a resource") from None


def is_name(name: str) -> bool:
    """Whether something found in the store is a resource."""
    try:
        parse_path(name.split("/"))
    except NameNotAllowed:
        return False
    return True


def no_numbers() -> MalformedMessage:
    """For `If-Match` and past versions, where a store has none."""
    return MalformedMessage("the store of this resource keeps no versions: leave If-Match away")


def too_many() -> MalformedMessage:
    """For a listing."""
    return MalformedMessage("the store has too many names: ask for a longer prefix")


def unavailable(service: str, what: str) -> StorageUnavailable:
    """what: a kind of failure, never a message of the service: that may hold names and credentials."""
    return StorageUnavailable("the store of this resource does not answer", operator_detail=f"{service}: {what}")
