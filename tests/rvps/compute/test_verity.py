"""dm-verity root hashes, against veritysetup."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.compute.verity import Verity, read_parameters, read_superblock, root_hash
from rvps.errors import ArtifactUnusable

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors/verity/veritysetup.json").read_text())
SUPERBLOCK = bytes.fromhex(VECTOR["superblock_of_300"])
SALT = bytes.fromhex("0102030405")
PARAMETERS = "root_hash=" + "ab" * 32 + ",salt=0102,data_blocks=3,data_block_size=4096,hash_block_size=4096"


def image(blocks: int) -> io.BytesIO:
    return io.BytesIO(b"".join(hashlib.sha256(i.to_bytes(8, "little")).digest() * 128 for i in range(blocks)))


@pytest.mark.parametrize("blocks", [int(one) for one in VECTOR["roots_salt_0102030405"] if one != "16384"])
def test_veritysetup_says_the_same(blocks: int) -> None:
    """One block, full and not quite full blocks of hashes, three levels."""
    digest, counted = root_hash(image(blocks), Verity(SALT))
    assert (digest.hex(), counted) == (VECTOR["roots_salt_0102030405"][str(blocks)], blocks)


def test_without_salt() -> None:
    assert root_hash(image(2), Verity(b""))[0].hex() == VECTOR["root_of_2_without_salt"]


def test_as_a_superblock_says() -> None:
    made = read_superblock(SUPERBLOCK)
    assert made == Verity(b"\xc8" * 32, 300)
    assert root_hash(image(310), made)[0].hex() == VECTOR["root_of_300_with_superblock"]


def test_a_partition_in_the_middle() -> None:
    told: list[int] = []
    file = io.BytesIO(b"x" * 512 + image(300).getvalue() + b"y" * 700)
    digest, _ = root_hash(file, Verity(b"\xc8" * 32), 512, 300 * 4096, told.append)
    assert digest.hex() == VECTOR["root_of_300_with_superblock"]
    assert sum(told) == 300 * 4096


@pytest.mark.parametrize(
    ("size", "made", "reason"),
    [
        (0, Verity(b""), "fewer"),
        (4097, Verity(b""), "whole number"),
        (4095, Verity(b"", 1), "fewer"),
        (4096, Verity(b"", 2), "fewer"),
    ],
    ids=["empty", "odd", "cut", "too few"],
)
def test_images_of_another_size(size: int, made: Verity, reason: str) -> None:
    with pytest.raises(ArtifactUnusable, match=reason):
        root_hash(io.BytesIO(bytes(size)), made)


def test_a_partition_that_ends_behind_the_file() -> None:
    with pytest.raises(ArtifactUnusable, match="ends inside"):
        root_hash(io.BytesIO(bytes(4096)), Verity(b""), 0, 8192)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        SUPERBLOCK[:511],
        bytes(512),
        SUPERBLOCK[:8] + b"\2" + SUPERBLOCK[9:],
        SUPERBLOCK[:12] + b"\0" + SUPERBLOCK[13:],
        SUPERBLOCK.replace(b"sha256", b"sha512"),
        SUPERBLOCK[:64] + b"\1" + SUPERBLOCK[65:],
        SUPERBLOCK[:72] + bytes(8) + SUPERBLOCK[80:],
        SUPERBLOCK[:80] + b"\xff\xff" + SUPERBLOCK[82:],
    ],
    ids=["empty", "cut", "no magic", "version", "type", "algorithm", "block size", "no blocks", "salt"],
)
def test_superblocks_that_are_refused(raw: bytes) -> None:
    with pytest.raises(ArtifactUnusable):
        read_superblock(raw)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_superblock_or_refused(raw: bytes) -> None:
    for candidate in (raw, SUPERBLOCK[:8] + raw.ljust(504, b"\0")):
        try:
            read_superblock(candidate)
        except ArtifactUnusable:
            continue


def test_parameters_of_kata() -> None:
    assert read_parameters(PARAMETERS + "\n") == (Verity(b"\1\2", 3), b"\xab" * 32)
    assert read_parameters("mode=kernelinit," + PARAMETERS)[0] == Verity(b"\1\2", 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "root_hash",
        PARAMETERS + ",salt=01",
        PARAMETERS + ",color=red",
        PARAMETERS.replace(",salt=0102", ""),
        PARAMETERS.replace("salt=0102", "salt=010"),
        PARAMETERS.replace("salt=0102", "salt=xx"),
        PARAMETERS.replace("data_blocks=3", "data_blocks=many"),
        PARAMETERS.replace("data_blocks=3", "data_blocks=0"),
        PARAMETERS.replace("data_blocks=3", "data_blocks=" + "9" * 30),
        PARAMETERS.replace("data_block_size=4096", "data_block_size=100"),
        PARAMETERS.replace("ab" * 32, "ab" * 31),
    ],
    ids=range(12),
)
def test_parameters_that_are_refused(text: str) -> None:
    with pytest.raises(ArtifactUnusable):
        read_parameters(text)
