"""ATTESTATION_REPORT: the bytes, read strictly and trusted not at all.

Source: AMD 56860 (SEV-SNP firmware ABI), ATTESTATION_REPORT and TCB_VERSION structures.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

REPORT_SIZE: Final = 0x4A0  # bytes, signature included
SIGNED_SIZE: Final = 0x2A0  # the signature covers what is before it
COMPONENT_SIZE: Final = 72  # r and s, little-endian, zero padded
HOST_VMPL: Final = 0xFFFFFFFF  # a report that the host asked for
VERSIONS: Final = (2, 3, 4, 5)
VERSION_WITH_MITIGATIONS: Final = 5

BODY: Final = struct.Struct(
    "<II Q 16s16s II 8s Q II"  # 0x000 version, guest SVN, policy, ids, VMPL, algorithm, current TCB, platform, keys
    "64s48s32s48s48s32s32s"  # 0x050 report data, measurement, host data, key digests, report ids
    "8s BBB 21s 64s"  # 0x180 reported TCB, CPUID (since version 3), reserved, chip id
    "8s 3Bx 3Bx 8s"  # 0x1E0 committed TCB, current and committed firmware (build, minor, major), launch TCB
    "QQ 152x"  # 0x1F8 mitigation vectors (since version 5), reserved
)
_TAIL: Final = struct.Struct(f"{COMPONENT_SIZE}s{COMPONENT_SIZE}s368s")
_ZERO: Final = b"\0"
_RESERVED_BYTES: Final = (0x1EB, 0x1EF)
_RESERVED_END: Final = slice(0x208, SIGNED_SIZE)


class SigningKey(IntEnum):
    """SIGNING_KEY in the key info word; every other value is reserved."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The word at 0x048."""

    author_key_enabled: bool
    mask_chip_key: bool
    signing_key: SigningKey


@dataclass(frozen=True, slots=True)
class FirmwareVersion:
    """Version of the SNP firmware."""

    major: int
    minor: int
    build: int

    def is_at_most(self, other: FirmwareVersion) -> bool:
        """Whether it is the other, or came before it."""
        return (self.major, self.minor, self.build) <= (other.major, other.minor, other.build)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, slots=True)
class Report:
    """One report, parsed. Byte fields as on the wire; integers unsigned; nothing verified."""

    signed: bytes  # the SIGNED_SIZE bytes under the signature
    r: int
    s: int
    version: int
    product: AmdProduct
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    platform_info: int
    key_info: KeyInfo
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    chip_id: bytes
    current_tcb: TcbVersion
    reported_tcb: TcbVersion
    committed_tcb: TcbVersion
    launch_tcb: TcbVersion
    current_firmware: FirmwareVersion
    committed_firmware: FirmwareVersion
    launch_mitigations: int
    current_mitigations: int


def parse(raw: bytes, v2_product: AmdProduct | None = None) -> Report:
    """Read a report without trusting it.

    Args:
        raw: exactly `REPORT_SIZE` bytes, integers little-endian, reserved bytes zero.
        v2_product: what made reports of version 2, which do not say; None refuses them.

    Raises:
        EvidenceMalformed: wrong length, a reserved byte or bit set.
        EvidenceVersionUnsupported: a version or a processor that nobody knows, or version 2 without `v2_product`.
    """
    if len(raw) != REPORT_SIZE:
        raise EvidenceMalformed(f"SNP report is not {REPORT_SIZE} bytes long")
    signed = raw[:SIGNED_SIZE]
    (
        version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info, key_info,
        reserved,
        report_data, measurement, host_data, id_key_digest, author_key_digest, report_id, report_id_ma,
        reported_tcb, family, model, stepping, reserved_cpuid, chip_id,
        committed_tcb, build, minor, major, committed_build, committed_minor, committed_major, launch_tcb,
        launch_mitigations, current_mitigations,
    ) = BODY.unpack(signed)  # fmt: skip
    if version not in VERSIONS:
        raise EvidenceVersionUnsupported("SNP report of an unknown version")
    r, s, padding = _TAIL.unpack_from(raw, SIGNED_SIZE)
    if (
        reserved
        or any(reserved_cpuid)
        or any(map(signed.__getitem__, _RESERVED_BYTES))
        or signed[_RESERVED_END].strip(_ZERO)
    ):
        raise EvidenceMalformed("SNP report has a reserved byte set")
    if padding.strip(_ZERO):
        raise EvidenceMalformed("SNP report has bytes behind its signature")
    if version < VERSION_WITH_MITIGATIONS and (launch_mitigations or current_mitigations):
        raise EvidenceMalformed("SNP report has mitigation vectors before version 5")
    product = _product(version, family, model, stepping, v2_product)
    return Report(
        signed=signed,
        r=int.from_bytes(r, "little"),
        s=int.from_bytes(s, "little"),
        version=version,
        product=product,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        signature_algorithm=algorithm,
        platform_info=platform_info,
        key_info=_key_info(key_info),
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key_digest,
        author_key_digest=author_key_digest,
        report_id=report_id,
        report_id_ma=report_id_ma,
        chip_id=chip_id,
        current_tcb=_tcb(current_tcb, product),
        reported_tcb=_tcb(reported_tcb, product),
        committed_tcb=_tcb(committed_tcb, product),
        launch_tcb=_tcb(launch_tcb, product),
        current_firmware=FirmwareVersion(major, minor, build),
        committed_firmware=FirmwareVersion(committed_major, committed_minor, committed_build),
        launch_mitigations=launch_mitigations,
        current_mitigations=current_mitigations,
    )


def product_of(family: int, model: int) -> AmdProduct:
    """The generation by combined CPUID family and model.

    Raises:
        EvidenceVersionUnsupported: a processor that nobody knows.
    """
    if family == 0x19 and model <= 0x0F:
        return AmdProduct.MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return AmdProduct.GENOA
    if family == 0x1A and model <= 0x11:
        return AmdProduct.TURIN
    if family == 0x1A and (0x50 <= model <= 0x57 or 0x90 <= model <= 0xAF or 0xC0 <= model <= 0xC7):
        return AmdProduct.VENICE
    raise EvidenceVersionUnsupported("SNP report of an unknown processor")


def encode_tcb(tcb: TcbVersion, product: AmdProduct) -> bytes:
    """TCB_VERSION as the product lays it out, 8 bytes."""
    if product is AmdProduct.TURIN:
        return bytes((tcb.fmc or 0, tcb.bootloader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode))
    return bytes((tcb.bootloader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode))


def _tcb(raw: bytes, product: AmdProduct) -> TcbVersion:
    if product is AmdProduct.TURIN:
        tcb, reserved = TcbVersion(raw[1], raw[2], raw[3], raw[7], raw[0]), raw[4:7]
    else:
        tcb, reserved = TcbVersion(raw[0], raw[1], raw[6], raw[7]), raw[2:6]
    if any(reserved):
        # Another product's layout, perhaps: comparing the wrong components could succeed by chance.
        raise EvidenceMalformed("SNP report has a reserved TCB component set")
    return tcb


def _product(version: int, family: int, model: int, stepping: int, v2_product: AmdProduct | None) -> AmdProduct:
    if version >= 3:
        product = product_of(family, model)
    elif v2_product is None:
        raise EvidenceVersionUnsupported("SNP report of version 2, which does not name its processor")
    elif family or model or stepping:
        raise EvidenceMalformed("SNP report of version 2 has a reserved byte set")
    else:
        product = v2_product
    if product is AmdProduct.VENICE:
        raise EvidenceVersionUnsupported("SNP report of a processor whose roots are not pinned")
    return product


def _key_info(word: int) -> KeyInfo:
    if word >> 5:
        raise EvidenceMalformed("SNP report has a reserved key info bit set")
    try:
        signing_key = SigningKey(word >> 2 & 0b111)
    except ValueError as err:
        raise EvidenceMalformed("SNP report names a reserved signing key") from err
    return KeyInfo(bool(word & 1), bool(word & 2), signing_key)
