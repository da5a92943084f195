"""The string: `sealed.` and a compact JWS with ES256.

`parse` reads it as strictly as the strictest guest, and verifies nothing; `verify` does. Source: guest-components 3.1;
RFC 7515 sections 3.1, 4.1 and 7.1; RFC 7518 section 3.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from jwcrypto.common import JWException
from jwcrypto.jws import JWS

from kbs import strict_json
from kbs.errors import KbsError, NameNotAllowed
from kbs.protocol import base64url
from kbs.protocol.resource_uri import ResourceUri, parse_uri
from kbs.sealed import payload as payloads
from kbs.sealed.errors import SealedRefused
from kbs.sealed.keys import ALGORITHM, PrivateKey, PublicKey
from kbs.sealed.payload import Payload, Vault

PREFIX: Final = "sealed."
MAX_SIZE: Final = 1 << 20  # characters
KEY_FOLDER: Final = "/run/confidential-containers/cdh/sealed-secret/"

_SIGNATURE_SIZE: Final = 64  # bytes, r and s
_FAKE: Final = ("fakejwsheader", "fakesignature")
_FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
_LIMITS: Final = strict_json.Limits(size=16 << 10, depth=4, tokens=100)


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A sealed secret that was read. Nothing in it is authentic before `verify`.

    jws: without the prefix. kid: as written. key: where a guest reads the public JWK; None where `kid` is the name of a
    file that was built into the guest image.
    """

    jws: str
    kid: str
    key: ResourceUri | None
    payload: Payload

    @property
    def requests(self) -> tuple[ResourceUri, ...]:
        """What a guest asks its broker for, in this order: the policy must allow all of it."""
        value = self.payload.uri if isinstance(self.payload, Vault) else None
        return tuple(uri for uri in (self.key, value) if uri is not None)

    def __str__(self) -> str:
        return PREFIX + self.jws


def seal(payload: Payload, key: PrivateKey, kid: ResourceUri) -> SealedSecret:
    """Sign a payload.

    Args:
        kid: of the public half, which guests read from their broker.

    Raises:
        SealedRefused: a payload that no guest unseals, or one that is too large. NameNotAllowed: `kid` is no resource.
    """
    kid.path  # noqa: B018 - of another plugin, guests would get no JWK
    signed = JWS(payloads.encode(payload))
    signed.allowed_algs = [ALGORITHM]
    # `b64` is not written: it says nothing here, and RFC 7797 wants it marked critical where it stands.
    header = strict_json.encode({"alg": ALGORITHM, "kid": str(kid)}).decode("ascii")
    signed.add_signature(key.as_jwk(), protected=header)
    sealed = parse(PREFIX + signed.serialize(compact=True))
    verify(sealed, key.public)
    return sealed


def parse(text: str) -> SealedSecret:
    """Read a sealed secret without trusting it.

    Raises:
        SealedRefused: a guest with verification on would not unseal it; the text says why.
    """
    if len(text) > MAX_SIZE:
        raise SealedRefused(f"more than {MAX_SIZE} characters")
    if not text.startswith(PREFIX):
        raise SealedRefused("a sealed secret begins with sealed.")
    if text != text.strip():
        raise SealedRefused(
            "there is white space at an end, perhaps a newline: guests refuse it; printf %s instead of echo"
        )
    parts = text.split(".")
    if len(parts) != 4:
        raise SealedRefused(f"a sealed secret has four parts with dots between them, this has {len(parts)}")
    if parts[1] == _FAKE[0] or parts[3] == _FAKE[1]:
        raise SealedRefused(
            "a sealed secret without signature: guests unseal it only with skip_sealed_secret_verification = true"
        )
    kid = _kid(_part(parts[1], "header"))
    payload = payloads.decode(_part(parts[2], "payload"))
    signature = _part(parts[3], "signature")
    if len(signature) != _SIGNATURE_SIZE:
        raise SealedRefused(f"signature: must be raw r and s, {_SIGNATURE_SIZE} bytes; this has {len(signature)}")
    return SealedSecret(text.removeprefix(PREFIX), kid, _key(kid), payload)


def verify(sealed: SealedSecret, key: PublicKey) -> Payload:
    """What the owner of `key` said.

    Raises:
        SealedRefused: the signature does not verify.
    """
    signed = JWS()
    signed.allowed_algs = [ALGORITHM]
    try:
        signed.deserialize(sealed.jws)
        signed.verify(key.as_jwk(), alg=ALGORITHM)
    except JWException:
        raise SealedRefused(f"signature invalid: not made with the key of {_shown(sealed.kid)}, or changed") from None
    return payloads.decode(signed.payload)


def _part(text: str, name: str) -> bytes:
    try:
        return base64url.decode(text)
    except KbsError:
        raise SealedRefused(f"{name}: not base64url without padding") from None


def _kid(header: bytes) -> str:
    try:
        members = strict_json.decode(header, limits=_LIMITS)
    except KbsError as err:
        raise SealedRefused(f"header: {err}") from None
    if not isinstance(members, dict):
        raise SealedRefused("header: not a JSON object")
    if members.get("alg") != ALGORITHM:
        raise SealedRefused(f"header: only alg {ALGORITHM} is accepted")
    if members.get("b64", True) is not True or "crit" in members:
        raise SealedRefused("header: b64 may only be true, and nothing is critical")
    kid = members.get("kid")
    if not isinstance(kid, str) or not kid:
        raise SealedRefused("header: there is no kid, so no guest would know the key")
    return kid


def _key(kid: str) -> ResourceUri | None:
    if "://" not in kid:
        if not _FILE.fullmatch(kid):
            raise SealedRefused(
                f"header: kid is neither a resource URI nor the name of a file in {KEY_FOLDER}; "
                "write kbs:///repository/type/tag"
            )
        return None
    try:
        uri = parse_uri(kid)
        uri.path  # noqa: B018 - of another plugin, guests would get no JWK
    except NameNotAllowed as err:
        raise SealedRefused(f"header: kid: {err}") from None
    return uri


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:200])
