"""SEV-SNP: the launch digest of a guest, from its firmware, its vCPUs and what QEMU hands to the firmware.

The arithmetic of the digest, the first state of vCPUs and the table of hashes come from sev-snp-measure. Its reader
of firmware does not: it believes the numbers in the file (a million sections of 4 GiB each) and reads kernels and
initrds whole. Firmware is read here, with bounds; kernels come as digests.

Source: AMD SEV-SNP firmware ABI (56860), 8.17.2 (launch digest, PAGE_INFO); EDK II OvmfPkg/ResetVector/X64/
OvmfSevMetadata.asm; verifiers 4.4.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS, cpu_sig
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from rvps.compute.firmware import FOUR_GIB, PAGE, Span, check_spans, from_end, guid_table, number
from rvps.errors import ArtifactUnusable

MAX_VCPUS: Final = 4096  # KVM_MAX_VCPUS; each costs two hashes
MAX_COMMAND_LINE: Final = 64 << 10  # bytes; Linux takes 2 KiB
VCPU_SIGNATURES: Final = dict(CPU_SIGS)
"""QEMU's CPU models: name to CPUID Fn0000_0001_EAX."""
SNP_ACTIVE: Final = 1
DIGEST_SIZE: Final = 48

_HASHES: Final = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_RESET: Final = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
_METADATA: Final = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
_HEADER: Final = struct.Struct("<4sIII")  # "ASEV", size, version, number of sections
_SECTION: Final = struct.Struct("<III")  # address, size, kind
_MAX_SECTIONS: Final = 256
_MAX_ADDED: Final = 64 << 20  # bytes that all sections have together; OVMF adds about 100 KiB
_HASHES_SIZE: Final = 176  # bytes of the padded table in its page
_MEMORY, _SECRETS, _CPUID, _CAA, _KERNEL_HASHES = 1, 2, 3, 4, 0x10
_SECTION_NAMES: Final = {
    _MEMORY: "zeroed memory", _SECRETS: "secrets page", _CPUID: "CPUID page", _CAA: "SVSM calling area",
    _KERNEL_HASHES: "page of kernel hashes",
}  # fmt: skip


class Vmm(StrEnum):
    """What launches the guest; they differ in the first state of a vCPU and in which pages are measured."""

    QEMU = "QEMU"
    EC2 = "ec2"
    GCE = "gce"


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What QEMU measures for direct boot: SHA-256 of the kernel and of the initrd (of nothing, if there is none), and
    the command line as given to QEMU."""

    kernel: bytes
    initrd: bytes
    command_line: str = ""


@dataclass(frozen=True, slots=True)
class Firmware:
    """What was read of an image. `sections`: (address, size, kind) in the order they are measured."""

    image: bytes
    sections: tuple[tuple[int, int, int], ...]
    reset_address: int  # of every vCPU but the first
    hashes_address: int | None  # of the table of kernel hashes


class _Hashes(SevHashes):  # type: ignore[misc]  # the library has no types
    """Hashes of files that were hashed as streams, where the library would read the files."""

    def __init__(self, kernel: bytes, initrd: bytes, command_line: bytes) -> None:
        self.kernel_hash, self.initrd_hash, self.cmdline_hash = kernel, initrd, command_line


def read_firmware(image: bytes) -> Firmware:
    """Read the SEV metadata of an OVMF image. Every number in it is checked before it is believed.

    Raises:
        ArtifactUnusable: cut, without metadata, with sections outside of 32-bit memory, of an unknown kind, of an
            impossible size, or that overlap.
    """
    table = guid_table(image)
    if len(image) % PAGE:
        raise ArtifactUnusable("the firmware is not made of whole pages: cut?")
    distance = number(table, _METADATA, "SEV metadata")
    reset = number(table, _RESET, "the SEV-ES reset address")
    if distance is None or reset is None:
        raise ArtifactUnusable("the firmware has no SEV-SNP metadata: it is built without SEV, or is the CODE part of"
                               " a build that is launched whole")  # fmt: skip
    at = from_end(image, distance, _HEADER.size, "SEV metadata")
    magic, size, version, count = _HEADER.unpack_from(image, at)
    if magic != b"ASEV" or version != 1:
        raise ArtifactUnusable("the firmware's SEV metadata has another form than version 1")
    if count > _MAX_SECTIONS or size < _HEADER.size + count * _SECTION.size or at + size > len(image):
        raise ArtifactUnusable("the firmware's SEV metadata has more sections than it has room for")
    body = image[at + _HEADER.size : at + _HEADER.size + count * _SECTION.size]
    sections = tuple(_SECTION.iter_unpack(body))
    _check_sections(sections, len(image))
    hashes = number(table, _HASHES, "the table of kernel hashes")
    return Firmware(image, sections, reset, hashes or None)


def launch_digests(
    firmware: Firmware,
    vcpus: Sequence[int],
    signature: int,
    *,
    boot: BootFiles | None = None,
    guest_features: int = SNP_ACTIVE,
    vmm: Vmm = Vmm.QEMU,
    firmware_digest: bytes | None = None,
) -> list[str]:
    """The launch digest (96 lower-case hex digits, `measurement` of reports) for each number of vCPUs, in that order.

    Args:
        signature: CPUID Fn0000_0001_EAX of the guest's CPU model; only QEMU measures it.
        guest_features: SEV_FEATURES of the guest, with bit 0 (SNPActive).
        firmware_digest: the digest after the firmware's own pages, where another firmware than the one at hand is
            loaded that has the same metadata; 48 bytes.

    Raises:
        ArtifactUnusable: `boot` for firmware that measures no kernel, or no reset address for more than one vCPU.
        ValueError: a number of vCPUs, features, a signature or a digest that no machine has.
    """
    _check_machine(vcpus, signature, guest_features, firmware_digest)
    if max(vcpus) > 1 and not firmware.reset_address:
        raise ArtifactUnusable("the firmware has no reset address for a second vCPU")
    context = GCTX() if firmware_digest is None else GCTX(seed=firmware_digest)
    if firmware_digest is None:
        context.update_normal_pages(FOUR_GIB - len(firmware.image), firmware.image)
    _add_sections(context, firmware, _hash_page(firmware, boot), vmm)
    pages = VMSA(SevMode.SEV_SNP, firmware.reset_address, signature, guest_features, VMMType[vmm.value])
    digests: dict[int, str] = {}
    for count, page in enumerate(pages.pages(max(vcpus)), start=1):
        context.update_vmsa_page(page)
        if count in vcpus:
            digests[count] = context.hex_ld()
    return [digests[count] for count in vcpus]


def firmware_digest(firmware: Firmware) -> str:
    """The digest after the firmware's own pages, 96 hex digits: `firmware_digest` of `launch_digests`."""
    context = GCTX()
    context.update_normal_pages(FOUR_GIB - len(firmware.image), firmware.image)
    found: str = context.hex_ld()
    return found


def vcpu_signature(family: int, model: int, stepping: int) -> int:
    """CPUID Fn0000_0001_EAX of a CPU (AMD 25481).

    Raises:
        ValueError: numbers that the register has no room for.
    """
    if not (0 <= family <= 0xF + 0xFF and 0 <= model <= 0xFF and 0 <= stepping <= 0xF):
        raise ValueError("family goes to 270, model to 255, stepping to 15")
    found: int = cpu_sig(family, model, stepping)
    return found


def _check_machine(vcpus: Sequence[int], signature: int, features: int, firmware_digest: bytes | None) -> None:
    if not vcpus or not all(0 < count <= MAX_VCPUS for count in vcpus):
        raise ValueError(f"a guest has 1 to {MAX_VCPUS} vCPUs")
    if not 0 <= signature < FOUR_GIB:
        raise ValueError("a CPU signature has 32 bits")
    if not features & SNP_ACTIVE or features >> 64:
        raise ValueError("guest features are 64 bits, of which bit 0 (SNP is active) is set")
    if firmware_digest is not None and len(firmware_digest) != DIGEST_SIZE:
        raise ValueError(f"a digest of firmware has {DIGEST_SIZE} bytes")


def _check_sections(sections: Sequence[tuple[int, int, int]], image_size: int) -> None:
    spans = [Span(FOUR_GIB - image_size, FOUR_GIB, "code")]
    for address, size, kind in sections:
        name = _SECTION_NAMES.get(kind)
        if name is None:
            raise ArtifactUnusable(f"the firmware's SEV metadata has a section of the unknown kind {kind}")
        if not size or (kind in (_SECRETS, _CPUID, _KERNEL_HASHES) and size != PAGE):
            raise ArtifactUnusable(f"the firmware's {name} has an impossible size")
        spans.append(Span(address, address + size, name))
    if sum(size for _, size, _ in sections) > _MAX_ADDED:
        raise ArtifactUnusable(f"the firmware's sections have more than {_MAX_ADDED >> 20} MiB")
    check_spans(spans)


def _hash_page(firmware: Firmware, boot: BootFiles | None) -> bytes | None:
    if boot is None:
        return None
    address = firmware.hashes_address
    place = [start for start, _, kind in firmware.sections if kind == _KERNEL_HASHES]
    if address is None or not place:
        raise ArtifactUnusable(
            "the firmware measures no kernel: it has no page of kernel hashes (OVMF's AmdSev build has one)"
        )
    if not place[0] <= address <= place[0] + PAGE - _HASHES_SIZE:
        raise ArtifactUnusable("the firmware's table of kernel hashes does not lie within its page")
    command_line = boot.command_line.encode() + b"\0"
    if len(command_line) > MAX_COMMAND_LINE or b"\0" in command_line[:-1]:
        raise ValueError(f"a command line has at most {MAX_COMMAND_LINE} bytes and no NUL")
    hashes = _Hashes(boot.kernel, boot.initrd, hashlib.sha256(command_line).digest())
    page: bytes = hashes.construct_page(address % PAGE)
    return page


def _add_sections(context: GCTX, firmware: Firmware, hash_page: bytes | None, vmm: Vmm) -> None:
    for address, size, kind in firmware.sections:
        if kind == _MEMORY and vmm is Vmm.GCE:
            context.update_unmeasured_pages(address, size)
        elif kind == _SECRETS:
            context.update_secrets_page(address)
        elif kind == _CPUID:
            if vmm is not Vmm.EC2:
                context.update_cpuid_page(address)
        elif kind == _KERNEL_HASHES and hash_page is not None:
            context.update_normal_pages(address, hash_page)
        else:
            context.update_zero_pages(address, size)
    if vmm is Vmm.EC2:  # which adds it last
        for address, _, kind in firmware.sections:
            if kind == _CPUID:
                context.update_cpuid_page(address)
