"""Keys that sign sealed secrets: JWKs on P-256. The public one is a resource of the broker; the private one never.

A private key's `kid` is the URI of its public half, which stands in the header of each secret that it signs.
Source: guest-components 3.1; RFC 7517, RFC 7518 section 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from kbs import strict_json
from kbs.errors import KbsError
from kbs.protocol import base64url
from kbs.protocol.resource_uri import ResourceUri
from kbs.sealed.errors import SigningKeyRefused
from kbs.secret import Secret
from kbs.strict_json import Json

ALGORITHM: Final = "ES256"
_SIZE: Final = 32  # bytes of a coordinate and of the private number
_LIMITS: Final = strict_json.Limits(size=16 << 10, depth=4, tokens=100)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Verifies. x, y: base64url. kid: as the JWK has it, perhaps none."""

    x: str
    y: str
    kid: str | None

    def encode(self) -> bytes:
        """The JWK as a broker serves it: compact, members sorted, never a private one."""
        members: dict[str, Json] = {
            "alg": ALGORITHM,
            "crv": "P-256",
            "kty": "EC",
            "use": "sig",
            "x": self.x,
            "y": self.y,
        }
        if self.kid is not None:
            members["kid"] = self.kid
        return strict_json.canonical(members)

    def as_jwk(self) -> Any:
        """For jwcrypto.

        Raises:
            SigningKeyRefused: the point is not on the curve.
        """
        return _jwk({"kty": "EC", "crv": "P-256", "x": self.x, "y": self.y})


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """Signs. d: base64url."""

    public: PublicKey
    d: Secret

    def encode(self) -> Secret:
        """The private JWK, for a file that nobody else reads."""
        members = {**strict_json.decode(self.public.encode()), "d": self.d.reveal().decode("ascii")}
        return Secret(strict_json.canonical(members))

    def as_jwk(self) -> Any:
        """For jwcrypto.

        Raises:
            SigningKeyRefused: the halves do not belong together.
        """
        d = self.d.reveal().decode("ascii")
        return _jwk({"kty": "EC", "crv": "P-256", "x": self.public.x, "y": self.public.y, "d": d})


def generate(kid: ResourceUri) -> PrivateKey:
    """A fresh key whose public half will be the resource `kid`.

    Raises:
        NameNotAllowed: not of the plugin `resource`.
    """
    kid.path  # noqa: B018 - only a resource can be written
    members = JWK.generate(kty="EC", crv="P-256").export(private_key=True, as_dict=True)
    return PrivateKey(PublicKey(members["x"], members["y"], str(kid)), Secret(members["d"].encode("ascii")))


def read_public(raw: bytes) -> PublicKey:
    """A public JWK from its text.

    Raises:
        SigningKeyRefused: not one of P-256 for ES256, or a private one: the text of the error says which.
    """
    members = _members(raw)
    if "d" in members:
        raise SigningKeyRefused(
            "this JWK holds the private key (member d): publish and hand out the public one, NAME-public.json"
        )
    return _public(members)


def read_private(raw: Secret) -> PrivateKey:
    """A private JWK from its text.

    Raises:
        SigningKeyRefused: not one of P-256 for ES256, or without its private half. Nothing of it is repeated.
    """
    members = _members(raw.reveal())
    if "d" not in members:
        raise SigningKeyRefused("this JWK has no private key (member d): seal with NAME-private.json")
    key = PrivateKey(_public(members), Secret(_number(members, "d").encode("ascii")))
    key.as_jwk()
    return key


def _members(raw: bytes) -> Mapping[str, Json]:
    try:
        members = strict_json.decode(raw, limits=_LIMITS)
    except KbsError:  # its text may name a place within a private key
        raise SigningKeyRefused("no JWK: not one JSON object without repeated members") from None
    if not isinstance(members, dict):
        raise SigningKeyRefused("no JWK: not a JSON object")
    return members


def _public(members: Mapping[str, Json]) -> PublicKey:
    if members.get("kty") != "EC" or members.get("crv") != "P-256":
        raise SigningKeyRefused("guests take keys of kty EC on the curve P-256 only")
    if members.get("alg", ALGORITHM) != ALGORITHM or members.get("use", "sig") != "sig":
        raise SigningKeyRefused("this JWK is not for ES256 signatures (alg, use)")
    kid = members.get("kid")
    if kid is not None and (not isinstance(kid, str) or not kid.isprintable()):
        raise SigningKeyRefused("the JWK's kid is no text")
    key = PublicKey(_number(members, "x"), _number(members, "y"), kid)
    key.as_jwk()
    return key


def _number(members: Mapping[str, Json], name: str) -> str:
    value = members.get(name)
    try:
        raw = base64url.decode(value) if isinstance(value, str) else b""
    except KbsError:
        raw = b""
    if len(raw) != _SIZE or not isinstance(value, str):
        raise SigningKeyRefused(f"the JWK's {name} is not {_SIZE} bytes in base64url")
    return value


def _jwk(members: Mapping[str, str]) -> Any:
    try:
        key = JWK(**members)
        key.get_op_key("sign" if "d" in members else "verify")
    except (JWException, ValueError):
        raise SigningKeyRefused("the JWK's numbers are no key on P-256") from None
    return key
