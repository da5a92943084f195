"""Secure Execution headers, alone and inside an image, against what the broker reads of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.verifiers.se.image_header import read_image_header
from kbs.client.attesters.se import SoftwareSe
from rvps.compute.se import Header, host_key_hash, read_header
from rvps.errors import ArtifactUnusable

HOSTS = (bytes([1]) * 32, bytes([2]) * 32)
MACHINE = SoftwareSe(host_keys_of_image=list(HOSTS))
HEADER = MACHINE.image_header
TAGS = MACHINE.tags
DOCUMENTS = Path(__file__).parents[2] / "vectors/se"


def read(raw: bytes) -> Header:
    return read_header(io.BytesIO(raw))


def changed(offset: int, value: bytes) -> bytes:
    return HEADER[:offset] + value + HEADER[offset + len(value) :]


def test_a_header() -> None:
    assert read(HEADER) == Header(TAGS[:64], TAGS[64:128], TAGS[128:192], TAGS[192:], HOSTS)


def test_an_image_with_metadata() -> None:
    """The metadata tell where the header is, however far, and hide what looks like one elsewhere."""
    image = bytearray(0x40_000)
    image[: len(HEADER)] = changed(0xE0, bytes(64))
    image[0x30_000 : 0x30_000 + len(HEADER)] = HEADER
    image[0xC000:0xC01C] = struct.pack(">8sQIQ", b"SeImgLnx", 0x30_000, 1, 0)
    assert read(bytes(image)).tag == TAGS[192:]
    assert read(bytes(0x14 * 4096) + HEADER + bytes(99)).tag == TAGS[192:]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(100_000),
        HEADER[1:],
        HEADER[:-1],
        HEADER[:9],
        bytes(0x15 * 4096) + HEADER,
        changed(0x08, (0x200).to_bytes(4, "big")),
        changed(0x0C, (2**32 - 1).to_bytes(4, "big")),
        changed(0x20, bytes(8)),
        changed(0x20, b"\xff" * 8),
        HEADER[:-16] + bytes(16),
        HEADER.replace(HOSTS[1], HOSTS[0]),
        bytes(0xC000) + struct.pack(">8sQIQ", b"SeImgLnx", 2**63, 1, 0) + bytes(4096),
    ],
    ids=range(13),
)
def test_what_is_refused(raw: bytes) -> None:
    with pytest.raises(ArtifactUnusable):
        read(raw)


@given(
    st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(HEADER))
)
def test_the_broker_reads_the_same(changes: list[tuple[int, int]], length: int) -> None:
    """Except for headers that were never sealed, or name a host twice, which only this refuses."""
    raw = bytearray(HEADER)
    for offset, value in changes:
        raw[offset] = value
    for candidate in (bytes(raw), bytes(raw[:length])):
        try:
            found = read(candidate)
        except ArtifactUnusable:
            continue
        there = read_image_header(io.BytesIO(candidate))
        assert there.tags == found.pld + found.ald + found.tld + found.tag
        assert there.host_keys == frozenset(found.host_keys)


def test_a_host_key_document() -> None:
    """The slot of the sample request that was made for this document holds its hash."""
    document = (DOCUMENTS / "host.pem.crt").read_bytes()
    assert (DOCUMENTS / "arcb.bin").read_bytes()[0xE0:0x100] == host_key_hash(document)


@pytest.mark.parametrize("document", [b"", b"-----BEGIN CERTIFICATE-----", b"x" * 100], ids=["empty", "cut", "no DER"])
def test_what_is_no_host_key(document: bytes) -> None:
    with pytest.raises(ArtifactUnusable, match="not a certificate"):
        host_key_hash(document)


def test_a_key_of_another_curve() -> None:
    with pytest.raises(ArtifactUnusable, match="P-521"):
        host_key_hash((DOCUMENTS / "cert/ibm.crt").read_bytes())
