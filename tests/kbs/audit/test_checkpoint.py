"""Heads are C2SP checkpoints; a foreign, edited or malformed one is refused."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from kbs.audit.checkpoint import Checkpoint, CheckpointInvalid, HeadSigner, read_head, verifier_key

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
ROOT = bytes(range(32))
ORIGIN = "kbs.example/audit"
NOTE = HeadSigner(ORIGIN, KEY).sign(42, ROOT)
PUBLIC = KEY.public_key()


def test_the_note_is_laid_out_as_c2sp_says() -> None:
    text, _, signature = NOTE.partition(b"\n\n")
    assert text.decode().split("\n") == [ORIGIN, "42", base64.b64encode(ROOT).decode()]
    dash, name, blob = signature.decode().removesuffix("\n").split(" ")
    raw = base64.b64decode(blob)
    assert (dash, name) == ("\u2014", ORIGIN)
    assert raw[:4] == sha256(ORIGIN.encode() + b"\n\x01" + PUBLIC.public_bytes_raw()).digest()[:4]
    PUBLIC.verify(raw[4:], text + b"\n")


def test_a_good_note_reads_back() -> None:
    assert read_head(NOTE, [PUBLIC]) == Checkpoint(ORIGIN, 42, ROOT)
    assert read_head(NOTE, [OTHER.public_key(), PUBLIC], ORIGIN).size == 42


def test_the_verifier_key_names_key_and_id() -> None:
    name, key_id, encoded = verifier_key(ORIGIN, PUBLIC).split("+", 2)
    assert name == ORIGIN
    raw = base64.b64decode(encoded)
    assert raw == b"\x01" + PUBLIC.public_bytes_raw()
    assert bytes.fromhex(key_id) == sha256(ORIGIN.encode() + b"\n" + raw).digest()[:4]


def test_a_foreign_key_or_log_is_refused() -> None:
    with pytest.raises(CheckpointInvalid, match="no signature by the log's key"):
        read_head(NOTE, [OTHER.public_key()])
    with pytest.raises(CheckpointInvalid, match="no signature"):
        read_head(NOTE, [])
    with pytest.raises(CheckpointInvalid, match="not 'another'"):
        read_head(NOTE, [PUBLIC], "another")


def test_extension_lines_and_cosignatures_are_let_be() -> None:
    text = f"{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()}\nextension\n".encode()
    blob = HeadSigner(ORIGIN, KEY)._id + KEY.sign(text)
    mine = f"\u2014 {ORIGIN} ".encode() + base64.b64encode(blob) + b"\n"
    witness = "\u2014 witness ".encode() + base64.b64encode(b"\x00" * 76) + b"\n"
    assert read_head(text + b"\n" + witness + mine, [PUBLIC]).size == 42
    with pytest.raises(CheckpointInvalid, match="no signature"):
        read_head(text + b"\n" + witness, [PUBLIC])


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(NOTE)):
        for bit in (0x01, 0x20, 0x80):
            flipped = bytearray(NOTE)
            flipped[position] ^= bit
            with pytest.raises(CheckpointInvalid):
                read_head(bytes(flipped), [PUBLIC])


@pytest.mark.parametrize("cut", range(0, len(NOTE), 7))
def test_a_cut_note_is_refused(cut: int) -> None:
    with pytest.raises(CheckpointInvalid):
        read_head(NOTE[:cut], [PUBLIC])


@pytest.mark.parametrize("size", ["042", "-1", "+1", "1.0", "", "٤٢", "9" * 20, "1 "])
def test_a_size_has_one_spelling(size: str) -> None:
    text = f"{ORIGIN}\n{size}\n{base64.b64encode(ROOT).decode()}\n".encode()
    blob = HeadSigner(ORIGIN, KEY)._id + KEY.sign(text)
    with pytest.raises(CheckpointInvalid):
        read_head(text + b"\n" + f"\u2014 {ORIGIN} ".encode() + base64.b64encode(blob) + b"\n", [PUBLIC])


@given(st.binary(max_size=300))
def test_junk_is_refused_and_nothing_else(junk: bytes) -> None:
    for note in (junk, NOTE + junk[1:] + b"x", NOTE.replace(b"\n\n", b"\n" + junk + b"\n\n") if junk else b""):
        with pytest.raises(CheckpointInvalid):
            read_head(note, [PUBLIC])


def test_a_note_that_is_far_too_long_is_refused() -> None:
    with pytest.raises(CheckpointInvalid, match="too long"):
        read_head(NOTE + b"x" * 20_000, [PUBLIC])


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "a\u2028b", "a\x00b"])
def test_an_origin_must_be_a_key_name(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        HeadSigner(origin, KEY)
