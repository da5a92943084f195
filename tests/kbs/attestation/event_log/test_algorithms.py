"""Digests of short and of long data are the same function's, whoever computes them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.event_log.algorithms import SHA256, SHA384, Algorithm


@pytest.mark.parametrize("algorithm", [SHA256, SHA384], ids=lambda each: each.bank)
@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 96, 111, 112, 127, 128, 1023, 1024, 1025, 70_000])
def test_every_size(algorithm: Algorithm, size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    assert algorithm.hash(data) == hashlib.new(algorithm.bank, data).digest()


@given(data=st.binary(max_size=2048))
def test_any_data(data: bytes) -> None:
    assert SHA256.hash(data) == hashlib.new("sha256", data).digest()
    assert SHA384.hash(data) == hashlib.new("sha384", data).digest()
