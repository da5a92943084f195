"""Own keys, own tokens and a clock that moves, for the tests of acceptance."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from kbs.tokens.keys import KeyRing, signing_key
from kbs.tokens.trust import Trust, own_issuer
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import NOW, TEE_KEY, ear

CENTURY = timedelta(days=36_525)
P256 = ec.generate_private_key(ec.SECP256R1())
OWN = signing_key(P256)
RING = KeyRing(OWN)
OWN_TRUST = Trust(own_issuer(RING))
HEADER = {"alg": "ES256", "typ": "JWT", "kid": OWN.kid}


class SteppedClock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def own_token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    return forge.token({**HEADER, **(header or {})}, ear(**changes), forge.es(P256))


def other_key() -> dict[str, str]:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    return {**TEE_KEY, "x": forge.b64u(numbers.x.to_bytes(32, "big")), "y": forge.b64u(numbers.y.to_bytes(32, "big"))}
