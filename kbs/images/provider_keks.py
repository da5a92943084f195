"""Which KEK belongs to a name: given as a file, kept here, kept by the broker, or made; one for all layers of an image.

A KEK is stored at the broker before anything is wrapped with it, and never over another one. What the broker is asked
goes through two callables, so that nothing here speaks to one. Source: guest-components 2.5.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kbs.images.errors import KekRefused
from kbs.images.kek import Random, new_kek, read_kek
from kbs.images.kid import guest_resource
from kbs.secret import Secret
from kbs.storage.private_files import make_private_directory, open_private, sync_directory

Store = Callable[[str, Secret, bool], bool]
"""Store a KEK: its path `repository/type/tag`, the KEK, whether to write over another. False: something is there
already. Raises BrokerRefused."""

Fetch = Callable[[str], Secret | None]
"""Read a KEK by its URI as an attested guest; None where there is none. Raises BrokerRefused, KekRefused."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Where KEKs are stored. place: the broker's address, to tell one from another."""

    store: Store
    place: str
    replace: bool = False


class KekFolder:
    """KEKs in files that nobody else reads, for processes that live no longer than one layer.

    keks/REPOSITORY/TYPE/TAG        32 raw bytes
    registered/REPOSITORY/TYPE/TAG  which KEK is stored at which broker, as a digest of both
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among processes that use the folder."""
        make_private_directory(self._folder)
        lock = open_private(self._folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self, path: str) -> Secret | None:
        """The KEK of that name, if there is one.

        Raises:
            KekRefused: a file that is no KEK.
        """
        file = self._folder / "keks" / path
        return read_kek(file) if file.exists() else None

    def keep(self, path: str, kek: Secret) -> None:
        """Write a KEK that is not there yet, durably."""
        self._write(self._folder / "keks" / path, kek.reveal())

    def is_registered(self, path: str, kek: Secret, place: str) -> bool:
        """Whether `register` was told of exactly this."""
        file = self._folder / "registered" / path
        return file.exists() and hmac.compare_digest(file.read_bytes(), _digest(kek, place))

    def register(self, path: str, kek: Secret, place: str) -> None:
        """Remember that this KEK is at this broker."""
        self._write(self._folder / "registered" / path, _digest(kek, place))

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        make_private_directory(file.parent)
        draft = file.with_name(f".{secrets.token_hex(8)}")  # no tag begins with a dot
        with os.fdopen(open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
        sync_directory(file.parent)


class Keks:
    """KEKs by name. Safe from several threads, and with a folder from several processes.

    Args:
        registration: where to store KEKs; None: nowhere.
        fetch: how to read them; None: not at all, administrators cannot.
        folder: where to keep those that are made here.
        one_layer: this process ends after one layer, so what it remembers is lost.
    """

    def __init__(
        self,
        *,
        registration: Registration | None = None,
        fetch: Fetch | None = None,
        folder: KekFolder | None = None,
        one_layer: bool = False,
        random: Random = secrets.token_bytes,
    ) -> None:
        if one_layer and registration is not None and folder is None and fetch is None:
            raise KekRefused(
                "each layer is a process of its own, and the second one could not tell whether the KEK at the broker is"
                " its own",
                next_step="add --keys FOLDER; or store the KEK first (kbs resource set) and leave the broker out here",
            )
        self._registration = registration
        self._fetch = fetch
        self._folder = folder
        self._one_layer = one_layer
        self._random = random
        self._known: dict[str, Secret] = {}
        self._registered: set[str] = set()
        self._lock = threading.Lock()

    def to_wrap(self, kid: str, keypath: Path | None) -> Secret:
        """The KEK to wrap with; it is stored at the broker when this returns.

        Args:
            kid: of `resolve_kid`.

        Raises:
            KekRefused: none to be had that is sure to be the same for each layer, or another one has the name.
            BrokerRefused: the broker did not store it. OSError: a file that does not read or write.
        """
        path = str(guest_resource(kid))
        with self._lock, self._alone():
            given = None if keypath is None else read_kek(keypath)
            known = self._kept(path)
            if given is not None and known is not None and not _same(given, known):
                raise KekRefused(
                    f"{kid} is the name of another KEK here: the layers before could not be opened with this"
                )
            kek = given or known or self._existing(kid) or self._new(kid, path)
            self._register(kid, path, kek)
            self._known[path] = kek
            return kek

    def to_unwrap(self, kid: str, keypath: Path | None) -> Secret:
        """The KEK to unwrap with.

        Raises:
            KekRefused: there is none. BrokerRefused: the broker does not hand it out. OSError: it does not read.
        """
        if keypath is not None:
            return read_kek(keypath)
        path = str(guest_resource(kid))
        with self._lock, self._alone():
            found = self._kept(path)
        found = found or (None if self._fetch is None else self._fetch(f"kbs:///{path}"))
        if found is None:
            raise KekRefused(
                f"there is no KEK of the name {kid} here",
                next_step="a decryption key provider:NAME:keypath=FILE, --kek-file FILE, or --attest with a broker",
            )
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._folder is None:
            yield
            return
        with self._folder.locked():
            yield

    def _kept(self, path: str) -> Secret | None:
        return self._known.get(path) or (None if self._folder is None else self._folder.read(path))

    def _existing(self, kid: str) -> Secret | None:
        return None if self._fetch is None else self._fetch(kid)

    def _new(self, kid: str, path: str) -> Secret:
        if self._folder is None:
            if self._one_layer:
                raise KekRefused(
                    f"{kid}: each layer is a process of its own and would get a KEK of its own",
                    next_step="keyid=…::keypath=FILE, or --keys FOLDER to keep the KEK that is made",
                )
            if self._registration is None:
                raise KekRefused(
                    f"{kid}: a KEK made here would be lost with this process, and the image with it",
                    next_step="keypath=FILE, --keys FOLDER, or a broker to store it (--data or --url)",
                )
        kek = new_kek(self._random)
        if self._folder is not None:
            self._folder.keep(path, kek)
        else:  # before it is stored: where the broker's answer is lost, the next try has the same KEK
            self._known[path] = kek
        return kek

    def _register(self, kid: str, path: str, kek: Secret) -> None:
        registration = self._registration
        if registration is None or path in self._registered:
            return
        if self._folder is not None and self._folder.is_registered(path, kek, registration.place):
            self._registered.add(path)
            return
        if not registration.store(path, kek, registration.replace):
            self._compare(kid, kek)
        if self._folder is not None:
            self._folder.register(path, kek, registration.place)
        self._registered.add(path)

    def _compare(self, kid: str, kek: Secret) -> None:
        stored = None if self._fetch is None else self._fetch(kid)
        if stored is None:
            raise KekRefused(
                f"{kid} is at the broker already, and administrators cannot see whether it is this KEK",
                next_step="another keyid; or --attest, to compare as a guest; or --replace-kek, to lose the other one",
            )
        if not _same(stored, kek):
            raise KekRefused(
                f"{kid} at the broker is another KEK, which opens images of its own",
                next_step="another keyid; or --replace-kek, to lose the other one",
            )


def _same(one: Secret, other: Secret) -> bool:
    return hmac.compare_digest(one.reveal(), other.reveal())


def _digest(kek: Secret, place: str) -> bytes:
    return hashlib.sha256(place.encode() + b"\0" + kek.reveal()).hexdigest().encode("ascii")


KEK_OF_THE_FIELD: Final = bytes.fromhex("d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea")
"""The KEK of `sample=true`: published, so it protects nothing (guest-components 2.4)."""

KID_OF_THE_FIELD: Final = "kbs:///default/test-key/1"
