"""Sealed secrets: the vectors, every negative case, and what is worse than those."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.errors import KbsError, NameNotAllowed
from kbs.protocol.resource_uri import parse_uri
from kbs.sealed import envelope, keys, payload, token
from kbs.sealed.errors import SealedRefused, SigningKeyRefused, ValueRefused
from kbs.sealed.payload import Envelope, Vault, WrapType
from kbs.secret import Secret

VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors/sealed/sealed-secret-vectors.json").read_text())
PRIVATE = keys.read_private(Secret(json.dumps(VECTORS["signing_key_private_jwk"]).encode()))
PUBLIC = keys.read_public(json.dumps(VECTORS["signing_key_public_jwk"]).encode())
KID = parse_uri(VECTORS["public_jwk_resource"]["uri"])
POSITIVE = ("vault", "vault_without_b64_header", "envelope")
NEGATIVE = {case["name"]: case["sealed"] for case in VECTORS["negative"]}
SAYS = {
    "signed-with-other-key": "signature invalid",
    "payload-swapped": "signature invalid",
    "no-kid": "no kid",
    "alg-none": "only alg ES256",
    "bad-version": "version must be 0.1.0",
    "missing-annotations": "annotations is mandatory",
    "trailing-newline": "newline",
    "der-signature": "raw r and s, 64 bytes",
    "envelope-with-kbs-provider": "unsupported provider",
}
VAULT = json.loads(VECTORS["vault"]["payload_json"])
ENVELOPE = json.loads(VECTORS["envelope"]["payload_json"])
HEADER = {"alg": "ES256", "kid": str(KID)}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def made(header: object = HEADER, said: object = VAULT, signature: bytes = bytes(64)) -> str:
    """With any header and payload; bytes go as they are."""
    parts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, said)]
    return f"sealed.{b64(parts[0])}.{b64(parts[1])}.{b64(signature)}"


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


# --- the vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSITIVE)
def test_vectors_verify(name: str) -> None:
    case = VECTORS[name]
    sealed = token.parse(case["sealed"])
    said = token.verify(sealed, PUBLIC)
    assert said == sealed.payload
    assert payload.encode(said).decode() == case["payload_json"]
    assert str(sealed) == case["sealed"]
    assert sealed.kid == str(sealed.key) == str(KID)


def test_a_vault_secret_asks_for_two_things_in_order() -> None:
    sealed = token.parse(VECTORS["vault"]["sealed"])
    assert [str(uri) for uri in sealed.requests] == VECTORS["vault"]["kbs_requests_in_order"]


def test_an_envelope_opens_with_its_data_key() -> None:
    case = VECTORS["envelope"]
    said = token.parse(case["sealed"]).payload
    assert isinstance(said, Envelope)
    data_key = envelope.check_data_key(bytes.fromhex(case["data_key_hex"]))
    assert envelope.decrypt(said, data_key).reveal() == case["plaintext_utf8"].encode()
    assert said.iv.hex() == case["iv_hex"]
    with pytest.raises(ValueRefused, match="another key"):
        envelope.decrypt(said, envelope.check_data_key(bytes(32)))


def test_the_public_key_is_the_resource_of_the_vectors() -> None:
    assert PUBLIC.encode().decode() == VECTORS["public_jwk_resource"]["body"]
    assert PRIVATE.public == PUBLIC


@pytest.mark.parametrize("name", NEGATIVE)
def test_every_negative_vector_is_refused(name: str) -> None:
    with pytest.raises(SealedRefused, match=SAYS[name]):
        token.verify(token.parse(NEGATIVE[name]), PUBLIC)


def test_no_negative_vector_is_left_out() -> None:
    assert set(NEGATIVE) == set(SAYS)


def test_the_form_without_a_signature_is_refused() -> None:
    with pytest.raises(SealedRefused, match="skip_sealed_secret_verification"):
        token.parse(VECTORS["skip_verification_form"]["sealed"])


# --- what else is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with sealed"),
        ("Sealed.a.b.c", "begins with sealed"),
        (made().removeprefix("sealed."), "begins with sealed"),
        ("sealed.a.b", "four parts"),
        (made() + ".more", "four parts, but|four parts"),
        (made().replace("sealed.", "sealed.."), "four parts"),
        (made() + " ", "white space"),
        (made() + "=", "not base64url"),
        (made(signature=b""), "64 bytes"),
        (made(signature=bytes(65)), "64 bytes"),
        ("sealed." + "a" * (1 << 20), "more than 1048576"),
        (made(signature=b"\xff" * 64)[:-1] + "+", "not base64url"),
    ],
    ids=range(12),
)
def test_other_forms_are_refused(text: str, says: str) -> None:
    with pytest.raises(SealedRefused, match=says):
        token.parse(text)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"{", "header: JSON"),
        (b"[]", "not a JSON object"),
        (b'{"alg":"ES256","kid":"kbs:///a/b/c","kid":"kbs:///a/b/d"}', "repeats"),
        ({"kid": str(KID)}, "only alg"),
        (HEADER | {"alg": "none"}, "only alg"),
        (HEADER | {"alg": "HS256"}, "only alg"),
        (HEADER | {"alg": "ES384"}, "only alg"),
        (HEADER | {"alg": "es256"}, "only alg"),
        (HEADER | {"alg": ["ES256"]}, "only alg"),
        (HEADER | {"b64": False, "crit": ["b64"]}, "b64"),
        (HEADER | {"crit": ["exp"]}, "critical"),
        (HEADER | {"kid": ""}, "no kid"),
        (HEADER | {"kid": 1}, "no kid"),
        (HEADER | {"kid": "kbs://a/b/c"}, "third|three slashes"),
        (HEADER | {"kid": "../../../etc/passwd"}, "neither a resource URI"),
        (HEADER | {"kid": "/etc/passwd"}, "neither a resource URI"),
        (HEADER | {"kid": ".."}, "neither a resource URI"),
        (HEADER | {"kid": "a/b"}, "neither a resource URI"),
        (HEADER | {"kid": "kbs:///a/../c"}, "segment is"),
        (HEADER | {"kid": "kbs:///a/b"}, "repository/type/tag"),
        (HEADER | {"kid": "file:///etc/passwd"}, "begin with kbs"),
        (HEADER | {"kid": "kbs+pkcs11:///a/b/c"}, "plugin pkcs11"),
        (HEADER | {"kid": "kbs:///a/b/c\n"}, "resource URI|repository"),
    ],
    ids=range(23),
)
def test_headers_that_are_refused(header: object, says: str) -> None:
    with pytest.raises(SealedRefused, match=says):
        token.parse(made(header))


def test_the_name_of_a_file_in_the_guest_is_no_request() -> None:
    sealed = token.parse(made(HEADER | {"kid": "built-in.json"}))
    assert sealed.key is None
    assert [str(uri) for uri in sealed.requests] == ["kbs:///default/db/password"]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"{", "payload: JSON"),
        (b"[]", "not a JSON object"),
        (json.dumps(VAULT).encode()[:-1] + b',"name":"kbs:///a/b/c"}', "repeats"),
        (without(VAULT, "version"), "version must be"),
        (VAULT | {"version": "0.1.1"}, "version must be"),
        (VAULT | {"type": "Vault"}, "neither vault nor envelope"),
        (without(VAULT, "type"), "neither vault nor envelope"),
        (without(VAULT, "name"), "name is missing"),
        (without(VAULT, "provider"), "provider is missing"),
        (without(VAULT, "provider_settings"), "provider_settings is mandatory"),
        (without(VAULT, "annotations"), "annotations is mandatory"),
        (VAULT | {"annotations": None}, "annotations is mandatory"),
        (VAULT | {"provider": "ehsm"}, "no guest has this provider"),
        (VAULT | {"provider": "azure"}, "no guest has this provider"),
        (VAULT | {"name": "kbs://default/db/password"}, "three slashes"),
        (VAULT | {"name": "default/db/password"}, "no resource URI"),
        (VAULT | {"name": "kbs:///default/db/../password"}, "segment is"),
        (without(ENVELOPE, "annotations"), "annotations is mandatory"),
        (without(ENVELOPE, "provider_settings"), "provider_settings is mandatory"),
        (without(ENVELOPE, "iv"), "iv is missing"),
        (without(ENVELOPE, "key_id"), "key_id is missing"),
        (ENVELOPE | {"provider": "kbs"}, "unsupported provider"),
        (ENVELOPE | {"provider": "other"}, "no guest has this provider"),
        (ENVELOPE | {"wrap_type": "A128GCM"}, "wrap_type is none of"),
        (ENVELOPE | {"wrap_type": "A256CTR"}, "iv has 12 bytes"),
        (ENVELOPE | {"encrypted_data": "zcNf fBDSq9R="}, "not standard base64"),
        (ENVELOPE | {"encrypted_key": "b3BhcXVl_-"}, "not standard base64"),
    ],
    ids=range(27),
)
def test_payloads_that_are_refused(said: object, says: str) -> None:
    with pytest.raises(SealedRefused, match=says):
        token.parse(made(said=said))


@given(st.text(max_size=40), st.integers(min_value=0, max_value=5))
def test_strange_texts_are_refused_and_nothing_else_happens(noise: str, place: int) -> None:
    parts = VECTORS["vault"]["sealed"].split(".")
    parts.insert(place, noise)
    for text in (noise, "sealed." + noise, ".".join(parts), VECTORS["vault"]["sealed"] + noise + "."):
        with pytest.raises(SealedRefused):
            token.parse(text)


@given(st.integers(min_value=0), st.sampled_from("AZaz09-_"))
def test_no_changed_character_verifies(place: int, character: str) -> None:
    text = VECTORS["vault"]["sealed"]
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with pytest.raises(SealedRefused):
            token.verify(token.parse(changed), PUBLIC)


# --- sealing ----------------------------------------------------------------------------------------------------------


def test_what_is_sealed_verifies_and_writes_no_optional_member() -> None:
    sealed = token.seal(Vault("kbs:///default/db/password"), PRIVATE, KID)
    _, header, said, _ = str(sealed).split(".")
    assert header == VECTORS["vault_without_b64_header"]["sealed"].split(".")[1]
    assert said == VECTORS["vault_without_b64_header"]["sealed"].split(".")[2]
    assert token.verify(sealed, PUBLIC) == Vault("kbs:///default/db/password")


@pytest.mark.parametrize("wrap_type", WrapType)
def test_an_envelope_comes_back(wrap_type: WrapType) -> None:
    data_key = envelope.check_data_key(bytes(range(32)))
    said = envelope.encrypt(
        Secret(b"value"),
        data_key,
        encrypted_key=b"opaque",
        key_id="key-1",
        provider="aws",
        provider_settings={"region": "x"},
        wrap_type=wrap_type,
    )
    back = token.verify(token.seal(said, PRIVATE, KID), PUBLIC)
    assert back == said
    assert isinstance(back, Envelope)
    assert envelope.decrypt(back, data_key).reveal() == b"value"


def test_what_no_guest_would_unseal_is_not_sealed() -> None:
    for name in ("kbs://default/db/password", "default/db/password", "kbs:///a/b"):
        with pytest.raises(SealedRefused):
            token.seal(Vault(name), PRIVATE, KID)
    with pytest.raises(NameNotAllowed):
        token.seal(Vault("kbs:///a/b/c"), PRIVATE, parse_uri("kbs+pkcs11:///a/b"))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_private_key_is_never_taken_for_a_public_one() -> None:
    with pytest.raises(SigningKeyRefused, match="private key") as caught:
        keys.read_public(PRIVATE.encode().reveal())
    assert VECTORS["signing_key_private_jwk"]["d"] not in str(caught.value)
    assert VECTORS["signing_key_private_jwk"]["d"] not in repr(PRIVATE)
    assert b'"d"' not in PRIVATE.public.encode()


def test_a_new_key_is_named_after_its_resource() -> None:
    key = keys.generate(KID)
    assert key.public.kid == str(KID)
    assert keys.read_private(key.encode()).public == key.public
    assert keys.read_public(key.public.encode()) == key.public
    assert keys.generate(KID).public.x != key.public.x


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "RSA"},
        {"kty": "oct", "k": "AAAA"},
        {"crv": "P-384"},
        {"alg": "ES384"},
        {"alg": "none"},
        {"use": "enc"},
        {"x": "AAAA"},
        {"x": None},
        {"y": VECTORS["signing_key_public_jwk"]["x"]},
        {"x": VECTORS["signing_key_public_jwk"]["x"] + "="},
        {"kid": 1},
    ],
    ids=range(11),
)
def test_jwks_that_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SigningKeyRefused):
        keys.read_public(json.dumps(VECTORS["signing_key_public_jwk"] | changes).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'"x"', b'{"kty":"EC","kty":"EC"}', b"-----BEGIN PUBLIC KEY-----"])
def test_what_is_no_jwk(raw: bytes) -> None:
    for read in (keys.read_public, lambda text: keys.read_private(Secret(text))):
        with pytest.raises(SigningKeyRefused, match="no JWK"):
            read(raw)


def test_halves_of_two_keys_are_no_key() -> None:
    other = json.loads(keys.generate(KID).encode().reveal())
    with pytest.raises(SigningKeyRefused):
        keys.read_private(Secret(json.dumps(VECTORS["signing_key_private_jwk"] | {"d": other["d"]}).encode()))
    with pytest.raises(SigningKeyRefused, match="no private key"):
        keys.read_private(Secret(PUBLIC.encode()))


def test_data_keys_of_other_sizes_are_refused() -> None:
    for raw, says in ((b"", "has 0"), (bytes(16), "has 16"), (bytes(32) + b"\n", "newline"), (b"A" * 44, "has 44")):
        with pytest.raises(ValueRefused, match=says):
            envelope.check_data_key(raw)


# --- URIs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("kbs:///a/b/c", "kbs:///a/b/c"),
        ("kbs://host:8080/a/b/c", "kbs:///a/b/c"),
        ("kbs+resource:///a/b/c", "kbs:///a/b/c"),
        ("kbs+pkcs11:///resource/a/b/c", "kbs+pkcs11:///resource/a/b/c"),
        ("kbs+nebula-ca:///credential?name=x", "kbs+nebula-ca:///credential?name=x"),
    ],
)
def test_uris(text: str, written: str) -> None:
    assert str(parse_uri(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "a/b/c", "/a/b/c", "kbs:", "kbs://", "kbs:///", "kbs:///a/b", "kbs://a/b/c", "kbs:///a/b/c/d", "KBS:///a/b/c",
        "kbs:///a//c", "kbs:///.a/b/c", "kbs:///a/b/c?x=1", "kbs+:///a/b/c", "http://h/a/b/c", "kbs://u@h/a/b/c",
        "kbs+x:///a/../b", "kbs:///a/b/c\n", "kbs:///a/b/\x1b[2J", "kbs+x:///" + "a" * 5000,
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(NameNotAllowed) as caught:
        parse_uri(text)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, KbsError)
