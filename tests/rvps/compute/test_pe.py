"""PE images: their digest, and what is refused."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.compute.pe import Window, authenticode, memory, read_image
from rvps.errors import ArtifactUnusable
from tests.rvps.compute.uki_images import pe

SECTIONS: list[tuple[bytes, bytes] | tuple[bytes, bytes, int]] = [
    (b".text", b"a" * 700),
    (b".data", b"b" * 30, 2000),
    (b".bss", b"", 4096),
]
IMAGE = pe(SECTIONS)
OPTIONAL = 64 + 24
TABLE = OPTIONAL + 112 + 16 * 8


def digest(raw: bytes, algorithm: str = "sha256") -> bytes:
    file = io.BytesIO(raw)
    return authenticode(file, read_image(file), (algorithm,))[algorithm]


def put(raw: bytes, offset: int, form: str, *values: int) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(form, changed, offset, *values)
    return bytes(changed)


@pytest.mark.parametrize("is_pe32", [False, True])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384"])
def test_the_digest_leaves_out_checksum_and_certificates(is_pe32: bool, algorithm: str) -> None:
    plain = pe(SECTIONS, is_pe32=is_pe32)
    signed = pe(SECTIONS, is_pe32=is_pe32, certificates=b"signature" * 8, checksum=0x12345678)
    assert digest(plain, algorithm) == digest(signed, algorithm)
    checksum, entry = OPTIONAL + 64, OPTIONAL + (96 if is_pe32 else 112) + 32
    covered = plain[:checksum] + plain[checksum + 4 : entry] + plain[entry + 8 :]
    assert digest(plain, algorithm) == hashlib.new(algorithm, covered).digest()


def test_an_image_without_a_certificate_directory() -> None:
    plain = pe(SECTIONS, directories=4)
    covered = plain[: OPTIONAL + 64] + plain[OPTIONAL + 68 :]
    assert digest(plain) == hashlib.sha256(covered).digest()


def test_what_lies_behind_the_sections_is_covered() -> None:
    assert digest(pe(SECTIONS, trailing=b"x" * 21)) != digest(pe(SECTIONS, trailing=b"y" * 21)) != digest(IMAGE)


def test_sections_are_taken_in_the_order_of_the_file() -> None:
    first, second = struct.unpack_from("<40s40s", IMAGE, TABLE)
    swapped = IMAGE[:TABLE] + second + first + IMAGE[TABLE + 80 :]
    body = IMAGE[len(IMAGE) - 1024 - 512 :]
    covered = swapped[: OPTIONAL + 64] + swapped[OPTIONAL + 68 : OPTIONAL + 144] + swapped[OPTIONAL + 152 : -len(body)]
    assert digest(swapped) == hashlib.sha256(covered + body).digest()


def test_a_section_in_memory_is_cut_or_filled() -> None:
    file = io.BytesIO(IMAGE)
    text, data, bss = read_image(file).sections
    assert b"".join(memory(file, text)) == b"a" * 700
    assert b"".join(memory(file, data)) == b"b" * 30 + bytes(1970)
    assert b"".join(memory(file, bss)) == bytes(4096)


def test_an_image_inside_a_file() -> None:
    inner = io.BufferedReader(Window(io.BytesIO(b"before" + IMAGE + b"behind"), 6, len(IMAGE)))
    assert authenticode(inner, read_image(inner)) == {"sha256": digest(IMAGE)}


def test_progress_tells_every_byte_once() -> None:
    told: list[int] = []
    file = io.BytesIO(IMAGE)
    authenticode(file, read_image(file), ("sha256", "sha384"), told.append)
    assert sum(told) == len(IMAGE) - 4 - 8


def test_a_section_of_two_gigabytes_comes_in_pieces() -> None:
    file = io.BytesIO(pe([(b".linux", b"k", 2 << 30)]))
    pieces = memory(file, read_image(file).sections[0])
    assert max(len(next(pieces)) for _ in range(8)) <= 1 << 20


REFUSED = {
    "empty": b"",
    "no MZ": b"ZM" + IMAGE[2:],
    "DOS header alone": IMAGE[:64],
    "header inside the DOS header": put(IMAGE, 60, "<I", 4),
    "header behind the file": put(IMAGE, 60, "<I", 1 << 31),
    "no PE signature": put(IMAGE, 64, "<I", 0),
    "no sections": put(IMAGE, 64 + 6, "<H", 0),
    "more sections than bytes": put(IMAGE, 64 + 6, "<H", 65535),
    "cut in the optional header": IMAGE[: OPTIONAL + 50],
    "cut in the section table": IMAGE[: TABLE + 50],
    "cut in a section": IMAGE[:-1],
    "unknown optional header": put(IMAGE, OPTIONAL, "<H", 0x107),
    "optional header too short": put(IMAGE, 64 + 20, "<H", 60),
    "directories without room": put(IMAGE, OPTIONAL + 108, "<I", 17),
    "headers end in the table": put(IMAGE, OPTIONAL + 60, "<I", TABLE),
    "headers end behind the file": put(IMAGE, OPTIONAL + 60, "<I", 1 << 30),
    "section outside the file": put(IMAGE, TABLE + 20, "<I", len(IMAGE)),
    "section of 4 GiB": put(IMAGE, TABLE + 16, "<I", 0xFFFFFFFF),
    "section over the headers": put(IMAGE, TABLE + 20, "<I", 0),
    "sections over each other": put(IMAGE, TABLE + 40 + 20, "<I", 1024),
    "certificates in the middle": put(IMAGE, OPTIONAL + 112 + 32, "<II", 512, 8),
    "certificates behind the file": put(IMAGE, OPTIONAL + 112 + 32, "<II", len(IMAGE), 8),
    "certificates over a section": put(IMAGE, OPTIONAL + 112 + 32, "<II", len(IMAGE) - 600, 600),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(ArtifactUnusable):
        read_image(io.BytesIO(REFUSED[name]))


@given(st.lists(st.tuples(st.integers(0, TABLE + 120), st.integers(0, 255)), max_size=6), st.integers(0, len(IMAGE)))
def test_changed_headers_are_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    raw = bytearray(IMAGE)
    for offset, value in changes:
        raw[offset] = value
    for candidate in (bytes(raw), bytes(raw[:length])):
        file = io.BytesIO(candidate)
        try:
            image = read_image(file)
        except ArtifactUnusable:
            continue
        assert len(authenticode(file, image)["sha256"]) == 32
        assert all(one.offset + one.size <= len(candidate) for one in image.sections if one.size)
