"""Kata guests: where the root file system lies in an image, and the command line that the runtime writes for it.

The command line is measured (SNP with kernel hashes, TDX), and the runtime puts it together anew for each guest. The
order below is that of Kata 3.30, Go runtime, QEMU, x86-64, with nothing switched on for debugging; another release
needs a template of its own: what `qemu -append` shows of a running guest, with `{root}` and `{vcpus}` put in.

Source: kata-containers, virtcontainers/qemu_amd64.go, qemu_arch_base.go, kata_agent.go and kernel_verity_params.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from rvps.compute.verity import ALGORITHM, Verity
from rvps.errors import ArtifactUnusable

TEMPLATE: Final = (
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 "
    "noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 {root} console=hvc0 console=hvc1 quiet "
    "systemd.show_status=false panic=1 nr_cpus={vcpus} selinux=0 systemd.unit=kata-containers.target "
    "systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none {params}"
)
"""Kata 3.30 with an image. `{params}`: `kernel_params` of the configuration, `agent.…` ones first."""

ROOT_FLAGS: Final[Mapping[str, str]] = {"ext4": "data=ordered,errors=remount-ro ro", "xfs": "ro", "erofs": "ro"}
_MAX_LINE: Final = 2047  # characters that an x86 kernel takes
_MAX_CPUS: Final = 4096
_SECTOR: Final = 512
_PARTITIONS_AT: Final = 446
_PARTITION: Final = struct.Struct("<B3xB3xII")  # status, type, first sector, sectors
_GPT: Final = 0xEE
_EXT_MAGIC_AT: Final = 1080
_EXT_MAGIC: Final = b"\x53\xef"


@dataclass(frozen=True, slots=True)
class Partition:
    """Bytes of an image file."""

    offset: int
    size: int


def partitions(file: BinaryIO, file_size: int) -> tuple[Partition, Partition | None]:
    """Where the root file system lies, and the partition behind it that holds hashes, if there is one.

    A file without a partition table is one file system. Kata's images have an MBR: the file system, then the hashes.

    Raises:
        ArtifactUnusable: a GPT, an empty first partition, or one outside the file or over another.
    """
    file.seek(0)
    head = file.read(_EXT_MAGIC_AT + 2)
    if head[510:512] != b"\x55\xaa" or head[_EXT_MAGIC_AT:] == _EXT_MAGIC:
        return Partition(0, file_size), None
    found = []
    for index in range(4):
        _, kind, first, sectors = _PARTITION.unpack_from(head, _PARTITIONS_AT + index * _PARTITION.size)
        if kind == _GPT:
            raise ArtifactUnusable("image: it has a GPT, which Kata's images have not; cut the root partition out")
        if sectors:
            found.append(Partition(first * _SECTOR, sectors * _SECTOR))
    if not found:
        raise ArtifactUnusable("image: its partition table is empty")
    ends = [_SECTOR, *(one.offset + one.size for one in found)]
    if any(one.offset < end for one, end in zip(found, ends, strict=False)) or ends[-1] > file_size:
        raise ArtifactUnusable("image: its partitions lie over each other or outside the file")
    return found[0], found[1] if len(found) > 1 else None


def verity_parameters(verity: Verity, blocks: int, root: bytes) -> str:
    """`kernel_verity_params` of Kata's configuration."""
    sizes = f"data_block_size={verity.data_block_size},hash_block_size={verity.hash_block_size}"
    return f"root_hash={root.hex()},salt={verity.salt.hex()},data_blocks={blocks},{sizes}"


def root_parameters(verity: Verity, blocks: int, root: bytes, *, file_system: str = "ext4", scheme: str) -> str:
    """What stands for `{root}`.

    Args:
        scheme: `kernelinit`: the kernel makes the device (`dm-mod.create`); `initramfs`: the initial file system does.

    Raises:
        ArtifactUnusable: a file system Kata does not know, or no salt where the kernel needs one.
    """
    flags = ROOT_FLAGS.get(file_system)
    if flags is None:
        raise ArtifactUnusable(f"Kata knows the file systems {', '.join(ROOT_FLAGS)}")
    if scheme == "initramfs":
        device = f"root=/dev/vda1 rootflags={flags} rootfstype={file_system}"
        return f"{device} rootfs_verity.scheme=dm-verity rootfs_verity.hash={root.hex()}"
    if not verity.salt:
        raise ArtifactUnusable("Kata's kernel_verity_params need a salt")
    sectors = verity.data_block_size // _SECTOR * blocks
    sizes = f"{verity.data_block_size} {verity.hash_block_size} {blocks}"
    table = f"0 {sectors} verity 1 /dev/vda1 /dev/vda2 {sizes} 0 {ALGORITHM} {root.hex()} {verity.salt.hex()}"
    return f'dm-mod.create="dm-verity,,,ro,{table}" root=/dev/dm-0 rootflags={flags} rootfstype={file_system}'


def kata_command_line(template: str = TEMPLATE, *, root: str = "", vcpus: int = 1, params: str = "") -> str:
    """The command line of one guest.

    Args:
        template: text with `{root}`, `{vcpus}` and `{params}`, each at most once; what it does not name is not put in,
            except that a `root` or `params` without a place is refused.
        vcpus: `nr_cpus`, the most that the guest may get.

    Raises:
        ArtifactUnusable: a value without its place, other braces, control characters, or longer than a kernel takes.
    """
    if not 0 < vcpus <= _MAX_CPUS:
        raise ArtifactUnusable(f"command line: from 1 to {_MAX_CPUS} vCPUs")
    line = template.strip("\r\n")
    if any(brace in value for brace in "{}" for value in (root, params)):
        raise ArtifactUnusable("command line: braces in a value")
    for name, value in (("root", root), ("vcpus", str(vcpus)), ("params", params)):
        place = "{" + name + "}"
        if line.count(place) > 1 or (value and name != "vcpus" and place not in line):
            raise ArtifactUnusable(f"command line template: {place} has to stand in it once")
        spaced = place if value else next((one for one in (f" {place}", f"{place} ") if one in line), place)
        line = line.replace(spaced, value)
    if "{" in line or "}" in line:
        raise ArtifactUnusable("command line template: braces are for {root}, {vcpus} and {params} only")
    if not line.isprintable() or len(line) > _MAX_LINE:
        raise ArtifactUnusable(f"command line: control characters, or more than {_MAX_LINE} characters")
    return line


def build(
    command_line: str, vcpus: int, files: Mapping[str, Mapping[str, str]], verity: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The document that `rvps compute snp` and `tdx` can start from.

    Args:
        files: `kernel`, and `initrd` or `image`; each with `name`, `sha256` and `sha384` (lower-case hex).
        verity: `root_hash`, `parameters` of the image, if there is one.
    """
    document: dict[str, Any] = {"kind": "kata", "command_line": command_line, "vcpus": vcpus, "files": dict(files)}
    if verity is not None:
        document["verity"] = dict(verity)
    return document
