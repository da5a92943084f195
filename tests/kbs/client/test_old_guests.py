"""What old guests open and what they refuse, against bodies put together here."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from kbs.client.errors import UnexpectedAnswer
from kbs.client.old_guests import GENERATIONS, open_old_form
from kbs.client.tee_keys import KeyKind, TeeKeyPair
from kbs.protocol.jwe import seal

PAIR = TeeKeyPair.generate(KeyKind.RSA1_5)
OTHER = TeeKeyPair.generate(KeyKind.RSA1_5)
HEADER = '{"alg":"RSA1_5","enc":"A256GCM"}'


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def answer(payload: bytes = b"open sesame", **changes: Any) -> bytes:
    """As brokers up to v0.11 made it."""
    cek, iv = bytes(range(32)), bytes(range(12))
    public = PAIR.private_key.public_key()
    members = {
        "protected": HEADER,
        "encrypted_key": b64(public.encrypt(cek, padding.PKCS1v15())),  # type: ignore[union-attr]
        "iv": b64(iv),
        "ciphertext": b64(AESGCM(cek).encrypt(iv, payload, None)),
        "tag": "",
    }
    return json.dumps({**members, **changes}).encode()


def test_it_opens() -> None:
    assert open_old_form(PAIR.private_key, answer()) == b"open sesame"
    assert open_old_form(PAIR.private_key, answer(b"")) == b""
    spaced = '{ "enc": "A256GCM", "alg": "RSA1_5" }'  # nobody authenticated it
    assert open_old_form(PAIR.private_key, answer(protected=spaced)) == b"open sesame"


@given(st.binary(max_size=300))
def test_it_opens_what_this_broker_seals(payload: bytes) -> None:
    sealed = seal(PAIR.public, payload, allow_rsa1_5=True, old_form=True)
    assert open_old_form(PAIR.private_key, sealed) == payload
    assert json.loads(sealed)["protected"] == HEADER


@pytest.mark.parametrize(
    "changes",
    [
        {"protected": b64(HEADER.encode())}, {"protected": "{}"}, {"protected": '{"alg":"dir","enc":"A256GCM"}'},
        {"protected": "[" * 5000}, {"protected": None}, {"tag": b64(bytes(16))}, {"tag": None}, {"iv": ""}, {"iv": 1},
        {"encrypted_key": ""}, {"encrypted_key": "AAAA"}, {"ciphertext": ""}, {"ciphertext": b64(bytes(40))},
    ],
    ids=range(13),
)  # fmt: skip
def test_other_answers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer):
        open_old_form(PAIR.private_key, answer(**changes))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff", b'{"protected":{}}'], ids=range(7)
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UnexpectedAnswer):
        open_old_form(PAIR.private_key, body)


def test_answers_for_others_and_of_today_are_refused() -> None:
    for key, body in (
        (OTHER.private_key, answer()),
        (TeeKeyPair.generate().private_key, answer()),
        (PAIR.private_key, seal(PAIR.public, b"x", allow_rsa1_5=True)),
    ):
        with pytest.raises(UnexpectedAnswer):
            open_old_form(key, body)


@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize("extra", [{"selected-hash-algorithm": "sm3"}, {"selected-hash-algorithm": 7}], ids=json.dumps)
def test_an_algorithm_that_is_not_known_is_refused(name: str, extra: Any) -> None:
    with pytest.raises(UnexpectedAnswer):
        GENERATIONS[name].report_data("nonce", PAIR.public.members, extra)


def test_a_selected_algorithm_is_taken() -> None:
    digest = GENERATIONS["0.1.1"].report_data("nonce", PAIR.public.members, {"selected-hash-algorithm": "SHA512"})
    assert len(digest) == 64
    assert len(GENERATIONS["0.2.0"].report_data("nonce", PAIR.public.members, {})) == 48
