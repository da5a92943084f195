"""Kata's images and command lines."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvps.compute.kata import (
    TEMPLATE,
    Partition,
    kata_command_line,
    partitions,
    root_parameters,
    verity_parameters,
)
from rvps.compute.verity import Verity, read_parameters
from rvps.errors import ArtifactUnusable

ROOT = bytes(range(32))
MADE = Verity(b"\xc8" * 32, 96512)
SIZE = 1 << 20


def disk(*entries: tuple[int, int, int], size: int = SIZE) -> io.BytesIO:
    """An MBR with entries (type, first sector, sectors)."""
    raw = bytearray(size)
    for index, (kind, first, sectors) in enumerate(entries):
        struct.pack_into("<B3xB3xII", raw, 446 + 16 * index, 0, kind, first, sectors)
    raw[510:512] = b"\x55\xaa"
    return io.BytesIO(bytes(raw))


def test_root_parameters_of_the_kernel() -> None:
    text = root_parameters(MADE, 96512, ROOT, scheme="kernelinit")
    table = f"0 772096 verity 1 /dev/vda1 /dev/vda2 4096 4096 96512 0 sha256 {ROOT.hex()} {'c8' * 32}"
    flags = "rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4"
    assert text == f'dm-mod.create="dm-verity,,,ro,{table}" root=/dev/dm-0 {flags}'


def test_root_parameters_of_an_initial_file_system() -> None:
    text = root_parameters(MADE, 96512, ROOT, file_system="erofs", scheme="initramfs")
    device = "root=/dev/vda1 rootflags=ro rootfstype=erofs"
    assert text == f"{device} rootfs_verity.scheme=dm-verity rootfs_verity.hash={ROOT.hex()}"


def test_parameters_are_read_back() -> None:
    assert read_parameters(verity_parameters(MADE, 96512, ROOT)) == (MADE, ROOT)


@pytest.mark.parametrize(("system", "salt"), [("btrfs", b"\1"), ("ext4", b"")], ids=["file system", "no salt"])
def test_root_parameters_that_kata_does_not_write(system: str, salt: bytes) -> None:
    with pytest.raises(ArtifactUnusable):
        root_parameters(Verity(salt), 1, ROOT, file_system=system, scheme="kernelinit")


def test_the_whole_line() -> None:
    line = kata_command_line(root="root=/dev/dm-0", vcpus=2, params="agent.log=debug")
    assert line.startswith("tsc=reliable no_timer_check ")
    assert " pci=lastbus=0 root=/dev/dm-0 console=hvc0 console=hvc1 quiet " in line
    assert " panic=1 nr_cpus=2 selinux=0 systemd.unit=kata-containers.target " in line
    assert line.endswith(" scsi_mod.scan=none agent.log=debug")


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a {root} b", "a b"),
        ("{root} b", "b"),
        ("a {root}", "a"),
        ("{root}", ""),
        ("a  b {params}\n", "a  b"),
        ("nr_cpus={vcpus}", "nr_cpus=7"),
    ],
)
def test_empty_values_leave_no_spaces(template: str, line: str) -> None:
    assert kata_command_line(template, vcpus=7) == line


@pytest.mark.parametrize(
    ("template", "root", "params", "vcpus"),
    [
        ("no place", "root=x", "", 1),
        ("no place", "", "x=y", 1),
        ("{root} {root}", "root=x", "", 1),
        ("{other}", "", "", 1),
        ("{root}", "{params}", "", 1),
        ("{params}", "", "a}", 1),
        ("a\nb", "", "", 1),
        ("a\0", "", "", 1),
        ("x" * 2048, "", "", 1),
        (TEMPLATE, "", "", 0),
    ],
    ids=range(10),
)
def test_lines_that_are_refused(template: str, root: str, params: str, vcpus: int) -> None:
    with pytest.raises(ArtifactUnusable):
        kata_command_line(template, root=root, params=params, vcpus=vcpus)


def test_partitions_of_kata() -> None:
    assert partitions(disk((0x83, 6144, 128)), 8 << 20) == (Partition(6144 * 512, 128 * 512), None)
    found = partitions(disk((0x83, 8, 128), (0x83, 136, 64)), SIZE)
    assert found == (Partition(8 * 512, 128 * 512), Partition(136 * 512, 64 * 512))


def test_a_file_system_alone() -> None:
    """Also one whose boot sector looks like a partition table."""
    assert partitions(io.BytesIO(bytes(SIZE)), SIZE) == (Partition(0, SIZE), None)
    raw = bytearray(disk((0x83, 8, 128)).getvalue())
    raw[1080:1082] = b"\x53\xef"
    assert partitions(io.BytesIO(bytes(raw)), SIZE) == (Partition(0, SIZE), None)


@pytest.mark.parametrize(
    "entries",
    [[(0xEE, 1, 100)], [], [(0x83, 0, 100)], [(0x83, 8, 1 << 31)], [(0x83, 8, 128), (0x83, 100, 64)]],
    ids=["GPT", "empty", "over the table", "outside", "over each other"],
)
def test_tables_that_are_refused(entries: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ArtifactUnusable):
        partitions(disk(*entries), SIZE)


@given(st.binary(min_size=64, max_size=64))
def test_any_table_is_read_or_refused(table: bytes) -> None:
    raw = bytearray(2048)
    raw[446:510], raw[510:512] = table, b"\x55\xaa"
    try:
        data, hashes = partitions(io.BytesIO(bytes(raw)), 1 << 30)
    except ArtifactUnusable:
        return
    assert data.offset >= 512
    assert data.offset + data.size <= 1 << 30
    assert hashes is None or hashes.offset >= data.offset + data.size
