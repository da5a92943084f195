"""Where an image is in a registry: `host[:port]/name[:tag|@digest]`, checked before it becomes part of an address.

Source: OCI distribution-spec 1.1, "Pulling manifests"; Docker's reference grammar for hosts.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from kbs.images.errors import ImageError, LocationRefused
from kbs.images.model import check_digest

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_NAME: Final = 255
_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DOCKER_API: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """host: with port, as the user wrote it. name: of the repository. reference: a tag or a digest."""

    host: str
    name: str
    reference: str

    @property
    def api_host(self) -> str:
        """Who is asked."""
        return _DOCKER_API if self.host in _DOCKER_HUB else self.host

    @property
    def is_digest(self) -> bool:
        """Whether the reference is a digest."""
        return ":" in self.reference

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        host = self.host.rpartition(":")[0] if re.search(r":[0-9]+$", self.host) else self.host
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}/{self.name}{'@' if self.is_digest else ':'}{self.reference}"


def parse_address(text: str) -> RegistryAddress:
    """Read what follows `docker://`. Without a tag it is `latest`.

    Raises:
        LocationRefused: outside the grammar.
    """
    host, slash, rest = text.partition("/")
    if not slash or not _HOST.fullmatch(host):
        raise LocationRefused(
            "a registry's image is docker://host[:port]/name[:tag] or docker://host[:port]/name@digest"
        )
    name, at, digest = rest.partition("@")
    tag = ""
    if not at:
        name, _, tag = rest.partition(":")
        if rest.endswith(":"):
            raise LocationRefused("the tag of the image is empty")
    if host in _DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise LocationRefused("the name of an image in a registry has lower-case letters, digits and . _ - between /")
    if tag and not _TAG.fullmatch(tag):
        raise LocationRefused("a tag has at most 128 letters, digits, . _ - and begins with none of . -")
    if at:
        try:
            check_digest(digest, "the image's address")
        except ImageError as err:
            raise LocationRefused(str(err)) from None
    return RegistryAddress(host, name, digest if at else tag or "latest")
