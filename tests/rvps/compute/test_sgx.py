"""SIGSTRUCT: read only under a signature that holds."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from rvps.compute.sgx import SIZE, read_sigstruct
from rvps.errors import ArtifactUnusable


@cache
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


def sigstruct(key: rsa.RSAPrivateKey, mr_enclave: bytes = b"E" * 32) -> bytes:
    numbers = key.public_key().public_numbers()
    raw = bytearray(SIZE)
    raw[0:16] = bytes.fromhex("06000000e10000000000010000000000")
    raw[24:40] = bytes.fromhex("01010000600000006000000001000000")
    raw[128:512] = numbers.n.to_bytes(384, "little")
    raw[512:516] = numbers.e.to_bytes(4, "little")
    raw[960:992] = mr_enclave
    raw[1024:1026] = (7).to_bytes(2, "little")
    raw[1026:1028] = (259).to_bytes(2, "little")
    signature = key.sign(bytes(raw[:128] + raw[900:1028]), PKCS1v15(), SHA256())
    raw[516:900] = int.from_bytes(signature).to_bytes(384, "little")
    return bytes(raw)


def test_what_it_says() -> None:
    raw = sigstruct(signing_key())
    found = read_sigstruct(raw)
    assert found.mr_enclave == (b"E" * 32).hex()
    assert found.mr_signer == hashlib.sha256(raw[128:512]).hexdigest()
    assert (found.isv_prod_id, found.isv_svn) == ("0700", "0301")


@pytest.mark.parametrize("at", [16, 40, 100, 127, 128, 300, 511, 512, 516, 899, 900, 928, 960, 991, 1024, 1026, 1027])
def test_any_signed_byte_matters(at: int) -> None:
    raw = bytearray(sigstruct(signing_key()))
    raw[at] ^= 1
    with pytest.raises(ArtifactUnusable):
        read_sigstruct(bytes(raw))


def test_wrong_files() -> None:
    raw = sigstruct(signing_key())
    for wrong in (b"", raw[:-1], raw + b"\0", bytes(SIZE), b"\1" + raw[1:], raw[:24] + b"\0" + raw[25:]):
        with pytest.raises(ArtifactUnusable):
            read_sigstruct(wrong)


@pytest.mark.parametrize(
    ("at", "piece"),
    [(512, b"\1\0\1\0"), (384, bytes(128)), (128, b"\0"), (128, bytes(384))],
    ids=("exponent", "2048-bits", "even", "zero"),
)
def test_keys_that_the_processor_does_not_take(at: int, piece: bytes) -> None:
    raw = sigstruct(signing_key())
    with pytest.raises(ArtifactUnusable, match="RSA-3072 with exponent 3"):
        read_sigstruct(raw[:at] + piece + raw[at + len(piece) :])
