"""What the commands of `kbs secret` read and write: sealed strings, keys, values, and pairs of key files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from kbs.cli.connection import Place
from kbs.protocol.resource_uri import ResourceUri, parse_uri
from kbs.sealed import keys, token
from kbs.sealed.errors import SigningKeyRefused, ValueRefused
from kbs.sealed.keys import PrivateKey, PublicKey
from kbs.sealed.token import SealedSecret
from kbs.secret import Secret
from kbs.storage.private_files import open_private

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_MAX_KEY: Final = 16 << 10  # bytes
_Key = TypeVar("_Key", PublicKey, PrivateKey)


def is_named(place: Place) -> bool:
    """Whether the options name a broker at all."""
    return place.given or place.data is not None


def read_sealed(word: str) -> SealedSecret:
    """The sealed secret of an argument, or of standard input for `-`, taken as it is: a newline would be part of it.

    Raises:
        SealedRefused: not one that guests unseal.
    """
    if word == "-":
        stream: Any = sys.stdin.buffer
        word = stream.read(token.MAX_SIZE + 1).decode("utf-8", "replace")
    return token.parse(word)


def read_public(path: Path) -> PublicKey:
    """A public JWK from a file.

    Raises:
        SigningKeyRefused: not one, or a private one.
    """
    return _named(path, keys.read_public)


def read_private(path: Path) -> PrivateKey:
    """A private JWK from a file.

    Raises:
        SigningKeyRefused: not one.
    """
    return _named(path, lambda raw: keys.read_private(Secret(raw)))


def kid_of(key: PublicKey, given: str | None) -> ResourceUri:
    """The URI of a public key: as given, else as the key itself names it.

    Raises:
        NameNotAllowed: no URI of a resource. SigningKeyRefused: neither names one.
    """
    text = given or key.kid
    if text is None or (given is None and "://" not in text):
        raise SigningKeyRefused("this JWK's kid is no resource URI: say where its public half is with --kid kbs:///…")
    uri = parse_uri(text)
    uri.path  # noqa: B018 - only a resource can be written
    return uri


def write_pair(folder: Path, key: PrivateKey, name: str) -> tuple[Path, Path]:
    """Write NAME-private.json (mode 0600) and NAME-public.json; neither may exist.

    Raises:
        ValueRefused: one of them exists. OSError: they cannot be written.
    """
    private, public = folder / f"{name}-private.json", folder / f"{name}-public.json"
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise ValueRefused(f"{path} exists: a signing key is never overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for path, content in ((private, key.encode().reveal()), (public, key.public.encode())):
            with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                made.append(path)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    public.chmod(0o644)
    return private, public


def _named(path: Path, read: Callable[[bytes], _Key]) -> _Key:
    with path.open("rb") as file:
        raw = file.read(_MAX_KEY + 1)
    try:
        return read(raw)
    except SigningKeyRefused as err:
        raise SigningKeyRefused(f"{path}: {err}") from None
