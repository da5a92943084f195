"""Image headers, alone and within an image."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.attestation.verifiers.se.image_header import ImageHeader, read_image_header
from kbs.client.attesters.se import SoftwareSe

MACHINE = SoftwareSe(host_keys_of_image=[bytes([1]) * 32, bytes([2]) * 32])
HEADER = MACHINE.image_header
EXPECTED = ImageHeader(MACHINE.tags, frozenset({bytes([1]) * 32, bytes([2]) * 32}))


def read(data: bytes) -> ImageHeader:
    return read_image_header(io.BytesIO(data))


def changed(offset: int, value: bytes) -> bytes:
    return HEADER[:offset] + value + HEADER[offset + len(value) :]


def test_a_header() -> None:
    assert read(HEADER) == EXPECTED


@pytest.mark.parametrize("page", [1, 0x12, 0x14])
def test_an_image_without_metadata(page: int) -> None:
    assert read(bytes(page * 4096) + HEADER + bytes(9999)) == EXPECTED


def test_an_image_with_metadata() -> None:
    """The metadata tell where the header is, however far, and hide what looks like one elsewhere."""
    image = bytearray(0x40_000)
    image[: len(HEADER)] = changed(0xE0, bytes(64))
    image[0x30_000 : 0x30_000 + len(HEADER)] = HEADER
    image[0xC000:0xC01C] = struct.pack(">8sQIQ", b"SeImgLnx", 0x30_000, 1, 0)
    assert read(bytes(image)) == EXPECTED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(100_000),
        HEADER[1:],
        HEADER[:-1],
        HEADER[:0x1A0],
        HEADER[:9],
        bytes(8) + HEADER,
        bytes(0x15 * 4096) + HEADER,
        changed(0x08, (0x200).to_bytes(4, "big")),
        changed(0x0C, (len(HEADER) - 1).to_bytes(4, "big")),
        changed(0x0C, (2**32 - 1).to_bytes(4, "big")),
        changed(0x20, bytes(8)),
        changed(0x20, b"\xff" * 8),
        changed(0x28, b"\xff" * 8),
        bytes(0xC000) + struct.pack(">8sQIQ", b"SeImgLnx", 2**63, 1, 0) + bytes(4096),
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(ValueError, match="header"):
        read(data)


@given(st.integers(0, len(HEADER) - 1), st.binary(min_size=1, max_size=16))
def test_any_change_is_read_or_refused(offset: int, value: bytes) -> None:
    try:
        found = read(changed(offset, value))
    except ValueError:
        return
    assert len(found.tags) == 208
    assert found.host_keys
