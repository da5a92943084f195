"""Signing: what is made is what intake reads; keys that must not sign do not."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from rvps import signing
from rvps.errors import StatementUnacceptable
from rvps.intake import INTAKES
from rvps.intake.model import Approval, Content, Revocation
from rvps.messages import check_signed, read_payload
from rvps.publishers.model import Publisher, Publishers, Trust, gather
from rvps.value_set import ValueSet

AT = datetime(2026, 6, 1, tzinfo=UTC)
LATER = AT + timedelta(days=30)
SET = ValueSet("guest", {"acme/a": ["ab"]})
KEY = signing.new_key("p256")


def known(key: signing.SigningKey) -> Publishers:
    public = load_pem_public_key(key.public_pem)
    return gather([Publisher("acme", frozenset({"dsse"}), ("acme/",), Trust(keys=(public,)))])  # type: ignore[arg-type]


def received(message: bytes, key: signing.SigningKey = KEY) -> Content | Approval | Revocation:
    document = json.loads(message)
    check_signed(document)
    intake = INTAKES[document["type"]]
    return intake.extract(intake.verify(read_payload(document), known(key), AT), AT)


@pytest.mark.parametrize("algorithm", ["p256", "p384", "ed25519"])
@pytest.mark.parametrize("password", [None, b"secret"])
def test_what_is_signed_is_read(algorithm: signing.Algorithm, password: bytes | None) -> None:
    key = signing.load_key(signing.new_key(algorithm).private_pem(password), password)
    statement = signing.values_statement(SET, serial=1, expires=LATER)
    content = received(signing.message(signing.sign(statement, key)), key)
    assert isinstance(content, Content)
    assert content.values == {"acme/a": ["ab"]}
    assert content.valid_until == LATER


def test_approvals_and_revocations_name_what_was_signed() -> None:
    digest = signing.digest_of(signing.values_statement(SET, serial=1, expires=LATER))
    assert received(signing.message(signing.sign(signing.approval_statement(digest, 1), KEY))) == Approval(digest, 1)
    revocation = signing.revocation_statement(digest, "key leaked")
    assert received(signing.message(signing.sign(revocation, KEY))) == Revocation(digest, "key leaked")


def test_a_file_travels_beside_its_attestation() -> None:
    message = json.loads(signing.message({"a": 1}, "sigstore-bundle", b"file"))
    assert message["type"] == "sigstore-bundle"
    content = json.loads(base64.b64decode(message["payload"]))
    assert content == {"artifact": base64.b64encode(b"file").decode(), "attestation": {"a": 1}}


def test_statements_that_nobody_could_take_are_not_made() -> None:
    for serial in (0, -1, 2**63):
        with pytest.raises(StatementUnacceptable, match="serial"):
            signing.values_statement(SET, serial=serial, expires=LATER)
    with pytest.raises(StatementUnacceptable, match="before it begins"):
        signing.values_statement(SET, serial=1, expires=AT, not_before=AT)
    with pytest.raises(StatementUnacceptable, match="hex"):
        signing.approval_statement("ab")
    with pytest.raises(StatementUnacceptable, match="reason"):
        signing.revocation_statement("ab" * 32, "two\nlines")


def test_other_keys_do_not_sign() -> None:
    small, weak = ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)
    for key in (small, weak):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(signing.KeyUnusable, match="neither"):
            signing.load_key(pem)


def test_passwords() -> None:
    locked = KEY.private_pem(b"secret")
    with pytest.raises(signing.PasswordNeeded):
        signing.load_key(locked)
    with pytest.raises(signing.KeyUnusable, match="not its password"):
        signing.load_key(locked, b"wrong")
    with pytest.raises(signing.KeyUnusable, match="not encrypted"):
        signing.load_key(KEY.private_pem(None), b"secret")
    old = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    assert signing.load_key(old, b"secret").id.startswith("sha256:")


@pytest.mark.parametrize("pem", [b"", b"nonsense", KEY.public_pem], ids=["empty", "text", "public"])
def test_what_is_no_private_key(pem: bytes) -> None:
    with pytest.raises(signing.KeyUnusable):
        signing.load_key(pem)


def test_keys_do_not_show_themselves() -> None:
    assert repr(KEY) == "SigningKey()"
