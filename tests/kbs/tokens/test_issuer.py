"""Issuing: exact header, readable by another library, nothing signed that acceptors would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwcrypto import jwk, jwt

from kbs.errors import ConfigInvalid, PayloadTooLarge, ServerFault
from kbs.tokens.issuer import IssuerSettings, TokenIssuer
from kbs.tokens.keys import KeyRing, load_token_key, signing_key
from tests.kbs.tokens import forge
from tests.kbs.tokens.forge import T, clock, ear

KEY = signing_key(ec.generate_private_key(ec.SECP256R1()))
ISSUER = TokenIssuer(KeyRing(KEY), IssuerSettings(), clock)


def _header(text: str) -> Any:
    return json.loads(forge.unb64u(text.split(".")[0]))


def test_header_is_exact_and_another_library_verifies() -> None:
    issued = ISSUER.issue(ear())
    assert _header(issued.text) == {"alg": "ES256", "typ": "JWT", "kid": KEY.kid}
    keys = jwk.JWKSet()
    keys.import_keyset(json.dumps(KeyRing(KEY).jwks()))
    checks = {"iss": forge.ISSUER, "exp": None, "nbf": None, "iat": None}
    read = jwt.JWT(algs=["ES256"], check_claims={**checks, "exp": T + 300, "nbf": T})
    read.leeway = 10**9  # the library reads the clock of the machine
    read.deserialize(issued.text, keys)
    assert json.loads(read.claims) == ear()
    assert issued.claims_json == forge.unb64u(issued.text.split(".")[1])
    assert json.loads(issued.claims_json) == issued.claims
    assert issued.expires.timestamp() == T + 300
    assert issued.text not in repr(issued)


def test_members_keep_their_order() -> None:
    assert list(json.loads(ISSUER.issue(ear()).claims_json)) == list(ear())


def test_signer_chain_brings_the_jwk(vectors: Path) -> None:
    folder = vectors / "tokens"
    key = load_token_key(folder / "signing-key.pem", folder / "cert-chain.pem")
    header = _header(TokenIssuer(KeyRing(key), IssuerSettings(), clock).issue(ear()).text)
    expected = json.loads((folder / "sample-flow-token.json").read_text())["header"]
    assert header == {**expected, "kid": key.kid}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": T},
        {"exp": T + 300.5},
        {"exp": "soon"},
        {"exp": True},
        {"exp": ...},
        {"iss": "elsewhere"},
        {"iss": ...},
        {"jti": ...},
        {"extra": float("nan")},
        {"extra": b"bytes"},
    ],
)
def test_claims_nobody_would_accept_are_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(ServerFault):
        ISSUER.issue(ear(**changes))


def test_size_limit_is_exact() -> None:
    text = ISSUER.issue(ear()).text
    limited = TokenIssuer(KeyRing(KEY), IssuerSettings(max_token=len(text)), clock)
    assert len(limited.issue(ear()).text) == len(text)
    with pytest.raises(PayloadTooLarge):
        TokenIssuer(KeyRing(KEY), IssuerSettings(max_token=len(text) - 1), clock).issue(ear())


def test_only_p256_signs_attestation_tokens() -> None:
    with pytest.raises(ConfigInvalid):
        TokenIssuer(KeyRing(signing_key(ed25519.Ed25519PrivateKey.generate())), IssuerSettings(), clock)
