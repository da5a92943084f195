"""Where a resource is among Kubernetes Secrets: one Secret for each repository and type, one key of it for each tag.

`default/TYPE/TAG` is key TAG of Secret TYPE, as the upstream operator lays them out, wherever TYPE is a name a Secret
may have and has no dot. Every other pair is the Secret `REPOSITORY.TYPE`, in which lower-case letters but z, digits and
inner hyphens stand for themselves, `zz` for z and `zXX` for the octet XX. So no two names meet in one place, and each
place tells its name. Source: Kubernetes, "Object Names and IDs" (DNS subdomain names) and Secret (keys of `data`).
"""

from __future__ import annotations

import re
from typing import Final

from kbs.errors import NameNotAllowed
from kbs.plugins.resource.model import StoreRefuses
from kbs.protocol.resource_path import parse as parse_path

_DEFAULT: Final = "default"
_MOST: Final = 253  # characters of a Secret's name, and of a key
_PLAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ESCAPED: Final = re.compile(r"z(z|[0-9a-f]{2})")


def place(name: str) -> tuple[str, str]:
    """Secret and key of a resource.

    Raises:
        StoreRefuses: no name of a resource, or one too long for a Secret.
    """
    try:
        path = parse_path(name.split("/"))
    except NameNotAllowed:
        raise StoreRefuses("no name of a resource") from None
    if path.repository == _DEFAULT and _PLAIN.fullmatch(path.type):
        secret = path.type
    else:
        secret = f"{_escape(path.repository)}.{_escape(path.type)}"
    if len(secret) > _MOST or len(path.tag) > _MOST:
        raise StoreRefuses(f"the name is too long for Kubernetes: a Secret's name and a key have {_MOST} characters")
    return secret, path.tag


def name_of(secret: str, key: str) -> str | None:
    """The resource that a key of a Secret is; None if it is none."""
    repository, dot, kind = secret.partition(".")
    try:
        segments = (_unescape(repository), _unescape(kind), key) if dot else (_DEFAULT, secret, key)
        name = str(parse_path(segments))
        return name if place(name) == (secret, key) else None  # else another place has that name
    except (NameNotAllowed, StoreRefuses, UnicodeDecodeError):
        return None


def _escape(segment: str) -> str:
    inner = range(1, len(segment) - 1)
    return "".join(_character(each, at in inner) for at, each in enumerate(segment))


def _character(each: str, inner: bool) -> str:
    if each == "z":
        return "zz"
    if _PLAIN.fullmatch(each) or (each == "-" and inner):
        return each
    return f"z{ord(each):02x}"


def _unescape(label: str) -> str:
    return _ESCAPED.sub(lambda found: "z" if found[1] == "z" else chr(int(found[1], 16)), label)
