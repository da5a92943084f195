"""The name of a KEK (`kid`): what a tool may write, and what a guest makes of what others wrote.

A guest ignores the host of `kbs://host/…` and asks the broker that it is configured with, so `kbs://a/b/c` asks for
`b/c`: the most common mistake. Source: guest-components 1.10, 2.5.
"""

from __future__ import annotations

import re
from typing import Final

from kbs.errors import NameNotAllowed
from kbs.images.errors import KidRefused
from kbs.protocol.resource_path import ResourcePath
from kbs.protocol.resource_path import parse as parse_path

_SCHEMES: Final = ("kbs", "kbs+resource")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]*")
_MAX: Final = 1024  # characters; three segments of the grammar and a host


def resolve_kid(text: str) -> str:
    """The `kid` to write for what a user wrote: `kbs:///r/t/t`, `/r/t/t` or `r/t/t`, always with three slashes.

    Raises:
        KidRefused: anything else; the text says what a guest would make of it and what to write.
    """
    scheme, separator, rest = text[: _MAX + 1].partition("://")
    if not separator:
        return f"kbs:///{_path(text.removeprefix('/'))}"
    if scheme not in _SCHEMES:
        raise KidRefused("a KEK is named kbs:///repository/type/tag")
    host, _, path = rest.partition("/")
    if host and path.count("/") == 1:
        raise KidRefused(
            f"kbs://{_shown(rest)}: a guest takes {_shown(host)!r} for a host and asks for {_shown(path)}; "
            f"write kbs:///{_shown(rest)} with three slashes"
        )
    if host:
        raise KidRefused(f"a guest ignores the host {_shown(host)!r}; write kbs:///{_shown(path)}")
    return f"kbs:///{_path(path)}"


def guest_resource(kid: str) -> ResourcePath:
    """The resource that a guest asks its broker for when a packet names `kid`.

    Raises:
        KidRefused: the guest refuses it, or asks for something that no broker has.
    """
    scheme, separator, rest = kid[: _MAX + 1].partition("://")
    if not separator:
        raise KidRefused(f"kid {_shown(kid)} is no resource URI: guests refuse it, it lacks kbs://")
    if scheme not in _SCHEMES:
        raise KidRefused(f"kid {_shown(kid)}: not of the plugin `resource`, whose URIs begin with kbs://")
    host, _, path = rest.partition("/")
    if not _AUTHORITY.fullmatch(host):
        raise KidRefused(f"kid {_shown(kid)}: no host")
    if host and path.count("/") == 1:
        raise KidRefused(
            f"kid {_shown(kid)}: guests take {_shown(host)!r} for a host and ask for {_shown(path)}, "
            "which no broker has; it lacks a third slash"
        )
    return _path(path)


def _path(path: str) -> ResourcePath:
    try:
        return parse_path(path.split("/"))
    except NameNotAllowed as err:
        raise KidRefused(f"{_shown(path)}: {err}; a KEK is named kbs:///repository/type/tag") from None


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:200])
