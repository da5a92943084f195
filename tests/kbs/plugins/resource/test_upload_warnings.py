"""What is probably not meant, and what is left in peace."""

from __future__ import annotations

import base64
import json

import pytest

from kbs.plugins.resource.upload_warnings import upload_warnings
from kbs.protocol.resource_path import parse

KEK = bytes(range(32))
JWK = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("default/image-kek/app", KEK + b"\n", "33 bytes: a key of 32 bytes and a newline?"),
        ("default/key/1", KEK + b"\0", "one more than a KEK has"),
        ("default/key/1", base64.b64encode(KEK), "44 bytes of base64"),
        ("default/Key/1", base64.b64encode(KEK) + b"\n", "45 bytes of base64"),
        ("kek/a/b", base64.urlsafe_b64encode(KEK).rstrip(b"="), "43 bytes of base64"),
        ("a/b/my-key", KEK.hex().encode(), "64 bytes of hexadecimal"),
        ("a/b/my-key", KEK.hex().upper().encode() + b"\n", "65 bytes of hexadecimal"),
        ("default/luks-key/1", b"passphrase\n", "11 bytes that end with a newline"),
        ("default/anything/1", json.dumps(JWK | {"d": "AA"}).encode(), "private JWK"),
        ("default/signing-key/1", b" " + json.dumps({"kty": "RSA", "d": "AA"}).encode(), "private JWK"),
        ("default/anything/1", b"sealed.a.b.c\n", "not unsealed"),
    ],
    ids=range(11),
)
def test_warned_of(path: str, value: bytes, says: str) -> None:
    (warning,) = upload_warnings(parse(path.split("/")), value)
    assert says in warning
    assert warning.isascii()
    assert warning.isprintable()
    assert value.decode("latin-1").strip() not in warning


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("default/image-kek/app", KEK),
        ("default/image-kek/app", b"\n" * 32),
        ("default/key/1", b""),
        ("default/key/1", b"passphrase"),
        ("default/key/1", bytes(48)),
        ("default/key/1", b"-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n"),
        ("default/signing-key/1", json.dumps(JWK).encode() + b"\n"),
        ("default/key/1", b"{" * 100_000),
        ("default/key/1", b"[" * 5000),
        ("default/db/password", b"hunter2\n"),
        ("default/db/password", KEK + b"\n"),
        ("default/db/password", b"sealed.a.b.c"),
        ("default/settings/1", b'{"d": 1}'),
    ],
    ids=range(13),
)
def test_left_in_peace(path: str, value: bytes) -> None:
    assert upload_warnings(parse(path.split("/")), value) == ()
