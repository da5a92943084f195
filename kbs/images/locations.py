"""Locations as users write them: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker://host/name[:tag|@digest]`.

Source: containers-transports(5) for the spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kbs.images.archive import ArchiveSource, ArchiveTarget
from kbs.images.errors import LocationRefused
from kbs.images.layout import LayoutSource, LayoutTarget
from kbs.images.places import Source, Target
from kbs.images.registry import RegistrySource, RegistryTarget
from kbs.images.registry_address import RegistryAddress, parse_address
from kbs.images.registry_auth import Credentials, read_credentials
from kbs.images.registry_client import RegistryClient, RegistryOptions

_TAG: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,254}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class LayoutLocation:
    """A folder, or a tar file. tag: which of its images; for a target the one it gets."""

    path: Path
    tag: str | None
    is_archive: bool

    def __str__(self) -> str:
        kind = "oci-archive" if self.is_archive else "oci"
        return f"{kind}:{self.path}" + (f":{self.tag}" if self.tag else "")


Location = LayoutLocation | RegistryAddress


def parse_location(text: str) -> Location:
    """Read a location. Nothing is opened.

    Raises:
        LocationRefused: of another kind, or not of its form.
    """
    if text.startswith("docker://"):
        return parse_address(text.removeprefix("docker://"))
    kind, colon, rest = text.partition(":")
    if kind not in ("oci", "oci-archive") or not colon or not rest:
        raise LocationRefused("images are named oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker://host/name[:tag]")
    path, _, tag = rest.partition(":")
    if tag and not _TAG.fullmatch(tag):
        raise LocationRefused("a tag of a layout has letters, digits and . _ @ + - in between")
    if not path or "\0" in path:
        raise LocationRefused("the location names no file")
    return LayoutLocation(Path(path), tag or None, kind == "oci-archive")


def open_source(location: Location, options: RegistryOptions) -> Source:
    """Open an image to read it.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(location, RegistryAddress):
        return RegistrySource(_client(location, options, "pull"))
    if location.is_archive:
        return ArchiveSource(location.path, location.tag)
    return LayoutSource(location.path, location.tag)


def open_target(location: Location, options: RegistryOptions) -> Target:
    """Begin to write an image.

    Raises:
        ImageError: nothing can be written there. OSError: files.
    """
    if isinstance(location, RegistryAddress):
        if location.is_digest:
            raise LocationRefused(f"{location}: a target has a tag, not a digest")
        return RegistryTarget(_client(location, options, "pull,push"))
    if location.is_archive:
        return ArchiveTarget(location.path, location.tag)
    return LayoutTarget(location.path, location.tag)


def _client(address: RegistryAddress, options: RegistryOptions, scope: str) -> RegistryClient:
    found = Credentials() if options.auth_file is None else read_credentials(options.auth_file, address)
    return RegistryClient(address, options, found, scope)
