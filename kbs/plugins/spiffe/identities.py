"""SPIFFE IDs from verified claims. A guest names an identity of the settings; what stands in it the token decides.

Source: SPIFFE-ID section 2. Trust domain: lower-case letters, digits, dots, dashes, underscores, at most 255 octets.
Path segments: letters, digits, dots, dashes, underscores, none empty, `.` or `..`. Together at most 2048 octets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.ear import find
from kbs.errors import AccessDenied, ConfigInvalid

_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+")
_PLACE: Final = re.compile(r"\{([a-z0-9_]+)\}")
_MOST: Final = 2048  # octets
_WORDS: Final = frozenset({"unverified", "runtime_data_claims", "runtime_data"})
"""Members of the claims that hold what the guest itself said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """One identity. path: with `{name}` where a claim goes in. claims: name → JSON pointer into the token's claims."""

    name: str
    path: str
    claims: Mapping[str, str]
    broker_keys: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity whose settings hold together. Made by `identity` only."""

    name: str
    broker_keys: bool
    _domain: str
    _path: str
    _claims: Mapping[str, str]

    def spiffe_id(self, claims: Mapping[str, Any]) -> str:
        """The SPIFFE ID of a guest with these verified claims.

        Raises:
            AccessDenied: a claim is absent, no text or number, or nothing that may stand in one segment.
        """
        values = {name: self._value(name, find(claims, pointer)) for name, pointer in self._claims.items()}
        path = _PLACE.sub(lambda place: values[place[1]], self._path)
        made = f"spiffe://{self._domain}{path}"
        if len(made) > _MOST or not all(_SEGMENT.fullmatch(segment) for segment in path[1:].split("/")):
            raise AccessDenied("this guest has no such identity", operator_detail=f"spiffe {self.name}: no SPIFFE ID")
        return made

    def _value(self, name: str, claim: Any) -> str:
        text = str(claim) if type(claim) is int else claim
        if not isinstance(text, str) or not _SEGMENT.fullmatch(text):
            detail = f"spiffe {self.name}: claim {name} is absent or may not stand in a SPIFFE ID"
            raise AccessDenied("this guest has no such identity", operator_detail=detail)
        return text


def check_trust_domain(name: str, where: str) -> None:
    """Raises ConfigInvalid: not a trust domain."""
    if not _DOMAIN.fullmatch(name):
        raise ConfigInvalid(f"settings: {where}.trust_domain: lower-case letters, digits, dots, dashes, underscores")


def identity(settings: IdentitySettings, trust_domain: str, where: str) -> Identity:
    """Check one identity.

    Raises:
        ConfigInvalid: a name or path outside its grammar, places and claims that do not match, a pointer to what guests
            say themselves.
    """
    here = f"settings: {where}: identity {settings.name!r}"
    if not _NAME.fullmatch(settings.name):
        raise ConfigInvalid(f"{here}: the name is one segment of a path")
    filled = _PLACE.sub("x", settings.path)
    if not settings.path.startswith("/") or not all(_SEGMENT.fullmatch(each) for each in filled[1:].split("/")):
        raise ConfigInvalid(f"{here}: path: /segments of letters, digits, dots, dashes, underscores and {{claim}}")
    if set(_PLACE.findall(settings.path)) != set(settings.claims):
        raise ConfigInvalid(f"{here}: every {{claim}} of the path stands in claims, and no other")
    if not settings.claims:
        raise ConfigInvalid(f"{here}: without a claim every guest that the policy allows would be the same workload")
    for name, pointer in settings.claims.items():
        parts = pointer.split("/")
        if parts[0] or len(parts) < 2:
            raise ConfigInvalid(f"{here}: claims.{name}: expected a JSON pointer")
        if _WORDS & {part.lower() for part in parts}:
            raise ConfigInvalid(f"{here}: claims.{name}: what guests say themselves makes no identity")
    return Identity(settings.name, settings.broker_keys, trust_domain, settings.path, dict(settings.claims))
