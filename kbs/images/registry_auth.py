"""How a registry wants to be asked: Basic, or a Bearer token from its token service, with what an auth file holds.

Source: distribution's token authentication specification (challenge, token request); RFC 9110 section 11.6.1;
containers-auth.json(5) for the file.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kbs import strict_json
from kbs.errors import KbsError
from kbs.images.errors import RegistryFailed
from kbs.images.registry_address import RegistryAddress
from kbs.secret import Secret

_MAX_FILE: Final = 1 << 20  # bytes
_LIMITS: Final = strict_json.Limits(size=_MAX_FILE, depth=16, tokens=50_000)
_DOCKER_KEYS: Final = ("docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_PARAMETER: Final = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_MAX_CHALLENGE: Final = 4096  # characters


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one registry. identity: a refresh token in place of name and password."""

    basic: Secret | None = None
    identity: Secret | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What `WWW-Authenticate` asks for. scheme: `basic` or `bearer`."""

    scheme: str
    parameters: Mapping[str, str]


def read_credentials(path: Path, address: RegistryAddress) -> Credentials:
    """What an auth file has for a registry: the most specific of `host/name…`, `host`; none is not an error.

    Raises:
        RegistryFailed: no such file, or not of this form. The text repeats nothing of it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
        document = strict_json.decode(raw, limits=_LIMITS)
    except OSError as err:
        raise RegistryFailed(f"{path}: {err.strerror}") from None
    except KbsError:
        raise RegistryFailed(f"{path}: no auth file (JSON as `docker login` and `podman login` write it)") from None
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise RegistryFailed(f"{path}: no auth file: `auths` is missing or no object")
    for key in _keys(address):
        if key in auths:
            return _entry(auths[key], path, key)
    if isinstance(document.get("credHelpers"), dict) and address.host in document["credHelpers"]:
        raise RegistryFailed(f"{path}: {address.host} is behind a credential helper, and none is run here")
    return Credentials()


def read_challenge(headers: list[str]) -> Challenge | None:
    """The challenge to answer: Bearer before Basic; None where neither is asked for.

    headers: values of `WWW-Authenticate`, one challenge each.
    """
    found: dict[str, Challenge] = {}
    for header in headers:
        scheme, _, rest = header[:_MAX_CHALLENGE].strip().partition(" ")
        pairs = {match[1].lower(): match[2] or match[3] or "" for match in _PARAMETER.finditer(rest)}
        found[scheme.lower()] = Challenge(scheme.lower(), pairs)
    return found.get("bearer") or found.get("basic")


def read_token(raw: bytes) -> Secret:
    """The token in a token service's answer: `token`, or `access_token`.

    Raises:
        RegistryFailed: there is none that fits a header.
    """
    try:
        members = strict_json.decode(raw, limits=_LIMITS)
    except KbsError:
        raise RegistryFailed("the token service's answer is not JSON") from None
    found = (members.get("token") or members.get("access_token")) if isinstance(members, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", found):
        raise RegistryFailed("the token service's answer holds no token")
    return Secret(found.encode("ascii"))


def _keys(address: RegistryAddress) -> list[str]:
    parts = f"{address.host}/{address.name}".split("/")
    keys = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    keys += [f"https://{address.host}", f"https://{address.host}/v1/", f"https://{address.host}/v2/"]
    return keys + list(_DOCKER_KEYS) if address.host in _DOCKER_KEYS else keys


def _entry(entry: strict_json.Json, path: Path, key: str) -> Credentials:
    if not isinstance(entry, dict):
        raise RegistryFailed(f"{path}: the entry of {key} is no object")
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Credentials(identity=Secret(identity.encode()))
    text = entry.get("auth")
    try:
        pair = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        pair = b""
    if b":" not in pair:
        raise RegistryFailed(f"{path}: the entry of {key} has no `auth` (base64 of name:password)")
    return Credentials(basic=Secret(pair))
