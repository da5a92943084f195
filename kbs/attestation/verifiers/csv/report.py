"""CSV attestation reports: the signed bytes and what they say. Little-endian.

Three versions exist. V2 extends V1 by build number and RTMRs; V3 is V2 with host data in what V2 reserves.

V1 is masked: the firmware XORs everything in front of `anonce` with `anonce`, and signs the masked bytes but not
`anonce`. Whoever passes a V1 report on can so shift all its 32-bit words by one common difference. No single field of
it is worth anything; two fields that must both be right at once, report data and measurement, are.

Nothing signed tells V2 from V3, so the version is read off the host data: there is some in V3, and none in V2.

Source: Hygon CSV API specification, attestation report and extended report; verifiers 8.1, 8.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kbs.attestation.hygon.certificates import CSV_SIZE, signature
from kbs.attestation.hygon.sm2 import Signature
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

REPORT_SIZE: Final = 4096  # bytes; a page, mostly padding
EXTENDED_MAGIC: Final = b"ATTESTATION_EXT\0"
FLAGS_V1: Final = 0
FLAGS_V2: Final = 1
FLAGS_V3: Final = 3
SERIAL_SIZE: Final = 64

_BODY: Final = struct.Struct("<32s16s16s64s16s32sIII")  # up to sig_algo
_EXTENSION: Final = struct.Struct("<IH14s32s32s32s32s32s592s64s")  # from build on
_ANONCE: Final = slice(188, 192)
_V1_SIGNED: Final = 180
_V2_SIGNED: Final = 0x400
_COMPONENTS: Final = struct.Struct("<72s72s")
_V1_SIGNATURE: Final = 192
_V1_SIZE: Final = 0x150
_V2_SIZE: Final = 0x490


@dataclass(frozen=True, slots=True)
class Extension:
    """What V2 has beyond V1. `host_data` is all zero in V2. Bytes are raw."""

    build: int
    rtmr_version: int
    reserved0: bytes
    rtmrs: tuple[bytes, ...]  # five of 32 bytes
    reserved1: bytes
    host_data: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """A report, unmasked, nothing of it verified. Byte fields are raw.

    extension: None in V1.
    signed: the bytes that the signature covers, masked in V1.
    signer: what the report says of its signer, masked or not: PEK (2084 bytes) and serial number (64 bytes).
    anonce: the mask; zero from V2 on.
    """

    extension: Extension | None
    signed: bytes
    signature: Signature
    signer: bytes
    anonce: bytes
    user_pubkey_digest: bytes
    vm_id: bytes
    vm_version: bytes
    report_data: bytes
    mnonce: bytes
    measure: bytes
    policy: int
    sig_usage: int
    sig_algo: int

    @property
    def version(self) -> int:
        """1, 2 or 3."""
        if self.extension is None:
            return 1
        return 3 if any(self.extension.host_data) else 2

    def signer_forms(self) -> tuple[tuple[bytes, bytes], ...]:
        """PEK and serial number as they stand, and unmasked: firmware masks them, guests may have undone that."""
        forms = [self.signer]
        if self.extension is None:
            forms.append(_unmask(self.signer, self.anonce))
        return tuple((form[:CSV_SIZE], form[CSV_SIZE:]) for form in forms)


def parse(magic: bytes, flags: int, data: bytes) -> Report:
    """Read a report without trusting it.

    Args:
        magic, flags: 16 bytes and a number that stand beside the report and say how to read it.
        data: exactly `REPORT_SIZE` bytes.

    Raises:
        EvidenceVersionUnsupported: magic and flags of no known version.
        EvidenceMalformed: wrong length, or a V2 report with something where V3 has its host data.
    """
    if len(data) != REPORT_SIZE:
        raise EvidenceMalformed("CSV report of a wrong length")
    if not any(magic) or (magic == EXTENDED_MAGIC and flags == FLAGS_V1):
        return _parse_v1(data)
    if magic != EXTENDED_MAGIC or flags not in (FLAGS_V2, FLAGS_V3):
        raise EvidenceVersionUnsupported("CSV report of an unknown version")
    report = _parse_v2(data)
    if flags == FLAGS_V2 and report.version != FLAGS_V2 + 1:
        raise EvidenceMalformed("CSV report of version 2 has reserved bytes set")
    return report


def _parse_v1(data: bytes) -> Report:
    anonce = data[_ANONCE]
    signer = data[_V1_SIZE : _V1_SIZE + CSV_SIZE + SERIAL_SIZE]
    components = _COMPONENTS.unpack_from(data, _V1_SIGNATURE)
    fields = _BODY.unpack(_unmask(data[: _BODY.size], anonce))
    return Report(None, data[:_V1_SIGNED], signature(*components), signer, anonce, *fields)


def _parse_v2(data: bytes) -> Report:
    signer = data[_V2_SIZE : _V2_SIZE + CSV_SIZE + SERIAL_SIZE]
    components = _COMPONENTS.unpack_from(data, _V2_SIGNED)
    build, version, reserved0, *rtmrs, reserved1, host_data = _EXTENSION.unpack_from(data, _BODY.size)
    extension = Extension(build, version, reserved0, tuple(rtmrs), reserved1, host_data)
    fields = _BODY.unpack_from(data)
    return Report(extension, data[:_V2_SIGNED], signature(*components), signer, bytes(4), *fields)


def _unmask(data: bytes, anonce: bytes) -> bytes:
    size = len(data)
    mask = anonce * (size // len(anonce) + 1)
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask[:size], "little")).to_bytes(size, "little")
