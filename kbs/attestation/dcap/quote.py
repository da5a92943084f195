"""Quotes of SGX enclaves and TDs: from bytes to fields. Nothing is checked but the form.

Integers are little-endian, the ECDSA numbers big-endian. Every length is compared with what is left before it is used.

Source: Intel SGX ECDSA Quote Library API reference, appendix A (version 3); Intel TDX DCAP Quoting Library API,
appendix A (versions 4 and 5); Intel SDM vol. 3D (REPORT); Intel TDX module ABI (TDREPORT). verifiers 2.2 to 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from kbs.attestation.endorsements.intel import IntelTee
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

MAX_QUOTE: Final = 64 * 1024  # bytes; real ones have 5, padded ones 8 KiB
HEADER_SIZE: Final = 48
ENCLAVE_REPORT_SIZE: Final = 384
TD_REPORT_SIZE: Final = 584
TD_REPORT_15_SIZE: Final = 648
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

_HEADER: Final = Struct("<HHI4s16s20s")
_DESCRIPTOR: Final = Struct("<HI")  # version 5: body type, body size
_TD: Final = Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD_15: Final = Struct("<16s48s")
_ENCLAVE: Final = Struct("<16s4s12s16s8s8s32s32s32s32s64sHHH42s16s64s")
_LENGTH: Final = Struct("<I")
_CERTIFICATION: Final = Struct("<HI")
_AUTH_LENGTH: Final = Struct("<H")

_ECDSA_P256: Final = 2
_TEE_TYPES: Final = {0x00: IntelTee.SGX, 0x81: IntelTee.TDX}
_BODY_TYPES: Final = {  # version 5: size and TEE by body type
    1: (ENCLAVE_REPORT_SIZE, IntelTee.SGX),
    2: (TD_REPORT_SIZE, IntelTee.TDX),
    3: (TD_REPORT_15_SIZE, IntelTee.TDX),
}
_QE_REPORT_CERTIFICATION: Final = 6
_PCK_CHAIN: Final = 5
_POINT: Final = 64
_SIGNATURE: Final = 64


@dataclass(frozen=True, slots=True)
class TdReport:
    """What the TDX module says of a TD (TDINFO and TEE_TCB_INFO). All fields are the raw bytes.

    tee_tcb_svn2, mr_servicetd: TD 1.5 only, else None.
    """

    tee_tcb_svn: bytes  # 16: [0] module ISVSVN, [1] module version, [2] SEAM loader
    mr_seam: bytes  # 48, as are all that follow but where it says so
    mrsigner_seam: bytes
    seam_attributes: bytes  # 8
    td_attributes: bytes  # 8
    xfam: bytes  # 8
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes  # 64
    tee_tcb_svn2: bytes | None = None  # 16
    mr_servicetd: bytes | None = None


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """What the processor says of an enclave (REPORT). `raw`: all 384 bytes, as signed."""

    raw: bytes = field(repr=False)
    cpu_svn: bytes  # 16
    misc_select: bytes  # 4
    isv_ext_prod_id: bytes  # 16
    flags: bytes  # 8
    xfrm: bytes  # 8
    mr_enclave: bytes  # 32
    mr_signer: bytes  # 32
    config_id: bytes  # 64
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes  # 16
    report_data: bytes  # 64


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote as it came.

    header: the 48 bytes. descriptor: body type and size of version 5, else empty.
    signed: header, descriptor and body. signature, attestation_key: r ‖ s and x ‖ y.
    qe_report, qe_signature, qe_auth_data, pck_chain: what certifies the attestation key, the same in every quote until
        the platform makes another key; the chain as found, PEM and padding.
    trailing: number of bytes behind the signature section.
    """

    version: int
    tee: IntelTee
    header: bytes = field(repr=False)
    descriptor: bytes
    body: TdReport | EnclaveReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: bytes = field(repr=False)
    qe_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    pck_chain: bytes = field(repr=False)
    trailing: int = 0


class _Reader:
    """Takes bytes from the front and never more than there are."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise EvidenceMalformed("quote ends too early")
        found = self._data[self._position : end]
        self._position = end
        return found

    def rest(self) -> bytes:
        return self._data[self._position :]


def parse_quote(data: bytes, *, allow_trailing_bytes: bool = False) -> Quote:
    """Read a quote without trusting it.

    Args:
        data: header, body, signature section, nothing else.
        allow_trailing_bytes: zero bytes may follow (some quoting services pad what they return); anything else may not.

    Raises:
        EvidenceMalformed: a wrong length, a TEE type or body type that disagree, bytes behind the end.
        EvidenceVersionUnsupported: a version, key type, TEE type, body type, certification data or vendor nobody knows.
    """
    if len(data) > MAX_QUOTE:
        raise EvidenceMalformed("quote is too long")
    reader = _Reader(data)
    header = reader.take(HEADER_SIZE)
    version, key_type, tee_type, _, vendor, _ = _HEADER.unpack(header)
    tee = _tee(version, key_type, tee_type, vendor)
    descriptor, size = _body_form(version, tee, reader)
    raw = reader.take(size)
    signature_section = _Reader(reader.take(_LENGTH.unpack(reader.take(_LENGTH.size))[0]))
    trailing = reader.rest()
    if trailing and (not allow_trailing_bytes or any(trailing)):
        raise EvidenceMalformed(f"quote has {len(trailing)} bytes behind its signature section")
    signature = signature_section.take(_SIGNATURE)
    attestation_key, qe_report, qe_signature, auth_data, chain = _certification(version, signature_section)
    return Quote(
        version=version,
        tee=tee,
        header=header,
        descriptor=descriptor,
        body=parse_enclave_report(raw) if tee is IntelTee.SGX else _td_report(raw),
        signed=header + descriptor + raw,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_auth_data=auth_data,
        pck_chain=chain,
        trailing=len(trailing),
    )


def _tee(version: int, key_type: int, tee_type: int, vendor: bytes) -> IntelTee:
    if version not in (3, 4, 5):
        raise EvidenceVersionUnsupported("quote of an unknown version")
    if key_type != _ECDSA_P256:
        raise EvidenceVersionUnsupported("quote is not signed with ECDSA P-256")
    tee = _TEE_TYPES.get(tee_type)
    if tee is None or (version == 3 and tee is not IntelTee.SGX):
        raise EvidenceVersionUnsupported("quote of an unknown TEE type")
    if vendor != INTEL_QE_VENDOR:
        raise EvidenceVersionUnsupported("quote of an unknown quoting enclave vendor")
    return tee


def _body_form(version: int, tee: IntelTee, reader: _Reader) -> tuple[bytes, int]:
    """The descriptor, where there is one, and the size of the body."""
    if version < 5:
        return b"", ENCLAVE_REPORT_SIZE if tee is IntelTee.SGX else TD_REPORT_SIZE
    descriptor = reader.take(_DESCRIPTOR.size)
    kind, size = _DESCRIPTOR.unpack(descriptor)
    if kind not in _BODY_TYPES:
        raise EvidenceVersionUnsupported("quote of an unknown body type")
    if (size, tee) != _BODY_TYPES[kind]:
        raise EvidenceMalformed("body type, body size and TEE type of the quote disagree")
    return descriptor, size


def _certification(version: int, reader: _Reader) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    attestation_key = reader.take(_POINT)
    if version >= 4:
        reader = _Reader(_data_of_type(reader, _QE_REPORT_CERTIFICATION))
    qe_report = reader.take(ENCLAVE_REPORT_SIZE)
    qe_signature = reader.take(_SIGNATURE)
    auth_data = reader.take(_AUTH_LENGTH.unpack(reader.take(_AUTH_LENGTH.size))[0])
    return attestation_key, qe_report, qe_signature, auth_data, _data_of_type(reader, _PCK_CHAIN)


def _data_of_type(reader: _Reader, wanted: int) -> bytes:
    """Certification data: type, length, and exactly that many bytes up to the end of what holds it."""
    kind, size = _CERTIFICATION.unpack(reader.take(_CERTIFICATION.size))
    if kind != wanted:
        raise EvidenceVersionUnsupported(f"quote has certification data of a type other than {wanted}")
    data = reader.take(size)
    if reader.rest():
        raise EvidenceMalformed("quote has bytes behind its certification data")
    return data


def _td_report(raw: bytes) -> TdReport:
    (
        tee_tcb_svn, mr_seam, mrsigner_seam, seam_attributes, td_attributes, xfam, mr_td, mr_config_id, mr_owner,
        mr_owner_config, rtmr_0, rtmr_1, rtmr_2, rtmr_3, report_data,
    ) = _TD.unpack_from(raw)  # fmt: skip
    tee_tcb_svn2, mr_servicetd = _TD_15.unpack_from(raw, TD_REPORT_SIZE) if len(raw) > TD_REPORT_SIZE else (None, None)
    return TdReport(
        tee_tcb_svn, mr_seam, mrsigner_seam, seam_attributes, td_attributes, xfam, mr_td, mr_config_id, mr_owner,
        mr_owner_config, (rtmr_0, rtmr_1, rtmr_2, rtmr_3), report_data, tee_tcb_svn2, mr_servicetd,
    )  # fmt: skip


def parse_enclave_report(raw: bytes) -> EnclaveReport:
    """Read the 384 bytes of an enclave's report, the quoting enclave's included.

    Raises:
        EvidenceMalformed: a reserved byte is set.
    """
    (
        cpu_svn, misc_select, reserved_1, ext_prod_id, flags, xfrm, mr_enclave, reserved_2, mr_signer, reserved_3,
        config_id, prod_id, svn, config_svn, reserved_4, family_id, report_data,
    ) = _ENCLAVE.unpack(raw)  # fmt: skip
    if any(reserved_1) or any(reserved_2) or any(reserved_3) or any(reserved_4):
        raise EvidenceMalformed("enclave report has a reserved byte set")
    return EnclaveReport(
        raw, cpu_svn, misc_select, ext_prod_id, flags, xfrm, mr_enclave, mr_signer, config_id, prod_id, svn,
        config_svn, family_id, report_data,
    )  # fmt: skip
