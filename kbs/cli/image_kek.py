"""KEKs between files, a broker and an image: registered before the image is written, taken back if it is not.

Administrators do not read secrets: what is read back after registering is the version and the number of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from kbs.cli.connection import Failure, Place, next_command, place_words
from kbs.cli.guest import Guest
from kbs.cli.output import warn
from kbs.client.admin import AdminClient
from kbs.client.errors import ClientError, Conflict, NotFound, VersionsUnknown
from kbs.client.guest import GuestClient
from kbs.client.model import VersionInfo
from kbs.images.errors import KekRefused
from kbs.images.kek import KEK_SIZE, check_kek, new_kek, read_kek
from kbs.images.kid import guest_resource
from kbs.images.opening import KekOf
from kbs.images.packet import Packet
from kbs.secret import Secret

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

KEK = click.option("--kek-file", type=_FILE, help="The KEK, 32 raw bytes. Default: a new one, made here.")
REPLACE = click.option("--replace", is_flag=True, help="Write the KEK as a new version where the broker has one.")
REGISTERED = click.option(
    "--registered", is_flag=True, help="The broker has this KEK: see that it does, write nothing."
)


@dataclass(frozen=True, slots=True)
class KekChoice:
    """What the options say. kid: resolved. place: the broker; None: the KEK comes from its file and stays there."""

    kid: str
    file: Path | None
    replace: bool
    registered: bool
    place: Place | None

    @classmethod
    def of(cls, kid: str, file: Path | None, place: Place, *, replace: bool, registered: bool) -> KekChoice:
        """A broker is asked where one is named, or no file is given."""
        broker = place if place.given or place.data is not None or file is None else None
        if registered and (file is None or replace):
            raise click.UsageError("--registered goes with --kek-file, and not with --replace")
        if replace and broker is None:
            raise click.UsageError("--replace is about a broker: name one with --url or --data")
        if registered and broker is None:
            raise click.UsageError("--registered is about a broker: name one with --url or --data")
        return cls(kid, file, replace, registered, broker)


@dataclass(frozen=True, slots=True)
class ChosenKek:
    """A KEK that an image may be written under. version: at the broker; None: no broker was asked."""

    kek: Secret
    kid: str
    version: int | None
    made: bool

    def document(self) -> dict[str, Any]:
        """What scripts are told."""
        where = None if self.version is None else {"version": self.version, "bytes": KEK_SIZE}
        return {"kid": self.kid, "generated": self.made, "broker": where}


@contextmanager
def chosen_kek(choice: KekChoice) -> Iterator[ChosenKek]:
    """The KEK, registered where there is a broker; taken back where the image could not be written.

    Raises:
        KekRefused: no 32 bytes; the broker has one already, or not what was registered. ClientError: the broker's no.
    """
    kek = new_kek() if choice.file is None else read_kek(choice.file)
    if choice.place is None:
        yield ChosenKek(kek, choice.kid, None, made=False)
        return
    path = str(guest_resource(choice.kid))
    with choice.place.admin() as admin:
        if choice.registered:
            yield ChosenKek(kek, choice.kid, _present(admin, path, choice.kid), made=False)
            return
        before = _current(admin, path)
        if before is not None and not choice.replace:
            raise _taken(choice, before)
        expected = 0 if before is None else before.version
        try:
            version = admin.set_resource(path, kek.reveal(), expected=expected)
        except Conflict:
            raise KekRefused(f"{choice.kid}: somebody else registered a KEK just now; nothing was written") from None
        try:
            _verify(admin, path, choice.kid, version)
            yield ChosenKek(kek, choice.kid, version, made=choice.file is None)
        except BaseException:
            _take_back(admin, path, before, version)
            raise


def kek_of_file(file: Path) -> KekOf:
    """One KEK for every packet."""
    kek = read_kek(file)
    return lambda _packet: kek


@contextmanager
def kek_of_guest(guest: Guest, place: Place) -> Iterator[KekOf]:
    """KEKs as a guest gets them: it attests to the broker and asks for what a packet names, once for each."""
    with guest.connect(place) as session:
        known: dict[str, Secret] = {}

        def find(packet: Packet) -> Secret:
            path = str(guest_resource(packet.kid))
            if path not in known:
                known[path] = _fetched(session, path, packet.kid, place)
            return known[path]

        yield find


def _fetched(session: GuestClient, path: str, kid: str, place: Place) -> Secret:
    try:
        raw = session.get_resource(path)
    except NotFound:
        raise KekRefused(
            f"{kid}: the broker has no such KEK", next_step=f"kbs resource list {place_words(place)}".rstrip()
        ) from None
    except ClientError as err:
        raise KekRefused(f"{kid}: {err}", next_step=next_command(err, place)) from None
    try:
        return check_kek(raw)
    except KekRefused as err:
        raise KekRefused(
            f"{kid}: {err}", next_step=f"kbs resource set {path} --file FILE {place_words(place)}".rstrip()
        ) from None


def _current(admin: AdminClient, path: str) -> VersionInfo | None:
    try:
        return admin.current_resource(path)
    except VersionsUnknown as err:  # Trustee
        raise KekRefused(
            str(err), next_step="--kek-file FILE without a broker, and store FILE there by the broker's own means"
        ) from None


def _present(admin: AdminClient, path: str, kid: str) -> int:
    found = _current(admin, path)
    if found is None:
        raise KekRefused(f"{kid}: the broker has no such KEK", next_step="leave --registered out to register it")
    if found.meta.get("size") != str(KEK_SIZE):
        raise KekRefused(f"{kid}: what the broker has there is no KEK: {found.meta.get('size')} bytes")
    return found.version


def _verify(admin: AdminClient, path: str, kid: str, version: int | None) -> None:
    found = _current(admin, path)
    if found is None or found.version != version or found.meta.get("size") != str(KEK_SIZE):
        raise KekRefused(f"{kid}: read back, the broker has something else than the KEK that was registered")


def _taken(choice: KekChoice, found: VersionInfo) -> KekRefused:
    again = (
        "--registered if it is the same one" if choice.file is not None else "--kek-file FILE --registered to use it"
    )
    return KekRefused(
        f"{choice.kid}: the broker has a KEK there (version {found.version}), and it is not overwritten: images under "
        "it could no longer be decrypted",
        next_step=f"another --kek; or {again}; or --replace",
    )


def _take_back(admin: AdminClient, path: str, before: VersionInfo | None, version: int | None) -> None:
    try:
        if before is None:
            admin.delete_resource(path, expected=version)
        else:
            admin.rollback_resource(path, before.version, expected=version)
    except Failure as err:
        warn(f"the KEK at {path} was registered and could not be taken back: {err}")
