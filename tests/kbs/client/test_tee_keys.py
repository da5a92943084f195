"""TEE key pairs."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.errors import MalformedMessage

EXPECTED = {
    KeyKind.EC_P256: ("EC", "P-256", "ECDH-ES+A256KW"),
    KeyKind.EC_P384: ("EC", "P-384", "ECDH-ES+A256KW"),
    KeyKind.EC_P521: ("EC", "P-521", "ECDH-ES+A256KW"),
    KeyKind.RSA_OAEP_256: ("RSA", None, "RSA-OAEP-256"),
    KeyKind.RSA1_5: ("RSA", None, "RSA1_5"),
}


@pytest.mark.parametrize("kind", list(KeyKind))
def test_generated_keys_say_what_they_are(kind: KeyKind) -> None:
    members = TeeKeyPair.generate(kind).public.members
    assert (members["kty"], members.get("crv"), members["alg"]) == EXPECTED[kind]


def test_two_keys_are_two() -> None:
    assert TeeKeyPair.generate().public.members != TeeKeyPair.generate().public.members


@pytest.mark.parametrize(
    "private_key",
    [ec.generate_private_key(ec.SECP256K1()), rsa.generate_private_key(3, 2048), rsa.generate_private_key(65537, 1024)],
    ids=["secp256k1", "exponent 3", "1024 bits"],
)
def test_keys_that_the_protocol_does_not_know_are_refused(
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    with pytest.raises(MalformedMessage):
        TeeKeyPair.from_private(private_key)
