"""TCB info and QE identity: documents that Intel signs, from bytes to what they say.

The signature is over the exact bytes of the inner object. The JSON decoder itself cuts them out of the body, after the
strict decoder took the whole: a body with a repeated member, which would have two readings, is refused.

Source: Intel PCS API v4 (Get TCB Info, Get Quoting Enclave Identity); verifiers 2.7 and 2.8 steps 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from kbs import strict_json
from kbs.attestation.dcap.levels import EnclaveLevel, LevelStatus, PlatformLevel, TcbStatus, TdxModule
from kbs.attestation.dcap.pck import check_end_entity, key_of
from kbs.attestation.dcap.signatures import verify_p256
from kbs.attestation.endorsements.intel import IntelTee, unpack_document
from kbs.attestation.x509 import X509_ERRORS, CertificatePath, PathVerifier, common_name, load_certificates
from kbs.errors import ChainInvalid, MalformedMessage, PayloadTooLarge, SignatureInvalid

SIGNER_NAME: Final = "Intel SGX TCB Signing"

_Hex2 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{4}\Z")]
_Hex4 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{8}\Z")]
_Hex6 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{12}\Z")]
_Hex8 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{16}\Z")]
_Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{32}\Z")]
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{64}\Z")]
_Hex48 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{96}\Z")]
_Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{128}\Z")]
_Svn8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_Svn16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Advisories = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]], msgspec.Meta(max_length=1024)
]


class _Component(msgspec.Struct):
    svn: _Svn8


_Components = Annotated[list[_Component], msgspec.Meta(min_length=16, max_length=16)]


class _PlatformTcb(msgspec.Struct):
    sgxtcbcomponents: _Components
    pcesvn: _Svn16
    tdxtcbcomponents: _Components | None = None


class _PlatformLevel(msgspec.Struct):
    tcb: _PlatformTcb
    tcbDate: _Moment  # noqa: N815  Intel's spelling, here and below
    tcbStatus: TcbStatus  # noqa: N815
    advisoryIDs: _Advisories = []  # noqa: N815


class _EnclaveTcb(msgspec.Struct):
    isvsvn: _Svn16


class _EnclaveLevel(msgspec.Struct):
    tcb: _EnclaveTcb
    tcbDate: _Moment  # noqa: N815
    tcbStatus: LevelStatus  # noqa: N815
    advisoryIDs: _Advisories = []  # noqa: N815


class _Module(msgspec.Struct):
    mrsigner: _Hex48
    attributes: _Hex8
    attributesMask: _Hex8  # noqa: N815


class _ModuleIdentity(_Module):
    id: Annotated[str, msgspec.Meta(pattern=r"^TDX_[0-9A-F]{2}\Z")]
    tcbLevels: list[_EnclaveLevel]  # noqa: N815


class _TcbInfo(msgspec.Struct):
    id: Literal["SGX", "TDX"]
    version: Literal[3]
    issueDate: _Moment  # noqa: N815
    nextUpdate: _Moment  # noqa: N815
    fmspc: _Hex6
    pceId: _Hex2  # noqa: N815
    tcbType: Literal[0]  # noqa: N815
    tcbEvaluationDataNumber: _Count  # noqa: N815
    tcbLevels: list[_PlatformLevel]  # noqa: N815
    tdxModule: _Module | None = None  # noqa: N815
    tdxModuleIdentities: list[_ModuleIdentity] = []  # noqa: N815


class _QeIdentity(msgspec.Struct):
    id: Literal["QE", "TD_QE"]
    version: Literal[2]
    issueDate: _Moment  # noqa: N815
    nextUpdate: _Moment  # noqa: N815
    tcbEvaluationDataNumber: _Count  # noqa: N815
    miscselect: _Hex4
    miscselectMask: _Hex4  # noqa: N815
    attributes: _Hex16
    attributesMask: _Hex16  # noqa: N815
    mrsigner: _Hex32
    isvprodid: _Svn16
    tcbLevels: list[_EnclaveLevel]  # noqa: N815


class _TcbInfoBody(msgspec.Struct, forbid_unknown_fields=True):
    tcbInfo: msgspec.Raw  # noqa: N815
    signature: _Hex64


class _QeIdentityBody(msgspec.Struct, forbid_unknown_fields=True):
    enclaveIdentity: msgspec.Raw  # noqa: N815
    signature: _Hex64


@dataclass(frozen=True, slots=True)
class Signed:
    """Who vouches for a document and for how long: signature and role checked, dates not."""

    path: CertificatePath  # TCB signing certificate, root
    issue_date: datetime
    next_update: datetime
    evaluation_number: int


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """TCB levels of one platform family, newest first.

    module, identities: TDX only. `module` is the identity of modules of version 0, without levels.
    """

    signed: Signed
    tee: IntelTee
    fmspc: bytes
    pce_id: bytes
    levels: tuple[PlatformLevel, ...]
    module: TdxModule | None
    identities: dict[int, TdxModule]  # by module version


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """What a quoting enclave must be; levels newest first."""

    signed: Signed
    tee: IntelTee
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[EnclaveLevel, ...]


def read_tcb_info(item: bytes, paths: PathVerifier, at: datetime) -> TcbInfo:
    """An item under `intel/tcb/…`, verified up to the root that `paths` knows.

    Raises:
        ChainInvalid: it does not parse, its signature or its signer is wrong.
        EndorsementExpired: a certificate of its signer is not valid at `at`.
    """
    try:
        document = unpack_document(item)
        body = _body(document.body, _TcbInfoBody)
        path = _verify(document.issuer_chain, bytes(body.tcbInfo), body.signature, paths, at)
        info = _typed(body.tcbInfo, _TcbInfo)
    except ValueError as err:
        raise ChainInvalid("TCB info does not parse") from err
    tee = IntelTee.TDX if info.id == "TDX" else IntelTee.SGX
    identities = {int(each.id.removeprefix("TDX_"), 16): _module(each) for each in info.tdxModuleIdentities}
    if len(identities) != len(info.tdxModuleIdentities):
        raise ChainInvalid("TCB info has two identities of one TDX module")
    if tee is IntelTee.TDX and any(level.tcb.tdxtcbcomponents is None for level in info.tcbLevels):
        raise ChainInvalid("TCB info of a TDX platform has a level without TDX components")
    levels = tuple(_platform_level(each) for each in info.tcbLevels)
    return TcbInfo(
        signed=_signed(path, info),
        tee=tee,
        fmspc=bytes.fromhex(info.fmspc),
        pce_id=bytes.fromhex(info.pceId),
        levels=tuple(sorted(levels, key=PlatformLevel.rank, reverse=True)),
        module=None if info.tdxModule is None else _module(info.tdxModule),
        identities=identities,
    )


def read_qe_identity(item: bytes, paths: PathVerifier, at: datetime) -> QeIdentity:
    """An item under `intel/qe-identity/…`; otherwise as `read_tcb_info`."""
    try:
        document = unpack_document(item)
        body = _body(document.body, _QeIdentityBody)
        path = _verify(document.issuer_chain, bytes(body.enclaveIdentity), body.signature, paths, at)
        identity = _typed(body.enclaveIdentity, _QeIdentity)
    except ValueError as err:
        raise ChainInvalid("QE identity does not parse") from err
    return QeIdentity(
        signed=_signed(path, identity),
        tee=IntelTee.TDX if identity.id == "TD_QE" else IntelTee.SGX,
        misc_select=bytes.fromhex(identity.miscselect),
        misc_select_mask=bytes.fromhex(identity.miscselectMask),
        attributes=bytes.fromhex(identity.attributes),
        attributes_mask=bytes.fromhex(identity.attributesMask),
        mr_signer=bytes.fromhex(identity.mrsigner),
        isv_prod_id=identity.isvprodid,
        levels=_enclave_levels(identity.tcbLevels),
    )


_T = TypeVar("_T")


def _body(text: str, kind: type[_T]) -> _T:
    """Decode after the strict decoder did: the typed one alone takes the last of two members of one name.

    Raises:
        ValueError: not such a body.
    """
    data = text.encode()
    try:
        strict_json.decode(data)
    except (MalformedMessage, PayloadTooLarge):
        raise ValueError("not JSON") from None
    return _typed(data, kind)


def _typed(data: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    """Decode what the strict decoder took already.

    Raises:
        ValueError: not of that type. Without its cause, which would carry the input.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        raise ValueError("not a document of this kind") from None


def _verify(chain: str, inner: bytes, signature: str, paths: PathVerifier, at: datetime) -> CertificatePath:
    """The TCB signing certificate up to the root, and the signature by its key.

    The role is part of it: a chain that merely ends at the root could be that of a PCK certificate, whose owner would
    then write his own TCB info.
    """
    try:
        certificates = load_certificates(chain.encode())
        signers = [each for each in certificates if common_name(each.subject) == SIGNER_NAME]
        if len(signers) != 1:
            raise ChainInvalid("collateral is not signed by a TCB signing certificate")
        path = paths.verify(signers[0], [each for each in certificates if each is not signers[0]], at)
        check_end_entity(path.leaf)
        key = key_of(path.leaf)
    except X509_ERRORS as err:
        raise ChainInvalid("issuer chain of the collateral does not parse") from err
    if len(path.certificates) != 2:
        raise ChainInvalid("TCB signing certificate is not issued by the root itself")
    try:
        verify_p256(key, bytes.fromhex(signature), inner, "collateral")
    except SignatureInvalid as err:
        raise ChainInvalid("signature of the collateral does not verify") from err
    return path


def _signed(path: CertificatePath, document: _TcbInfo | _QeIdentity) -> Signed:
    return Signed(
        path, document.issueDate.astimezone(UTC), document.nextUpdate.astimezone(UTC), document.tcbEvaluationDataNumber
    )


def _platform_level(level: _PlatformLevel) -> PlatformLevel:
    tdx = level.tcb.tdxtcbcomponents
    return PlatformLevel(
        sgx=tuple(each.svn for each in level.tcb.sgxtcbcomponents),
        tdx=None if tdx is None else tuple(each.svn for each in tdx),
        pce_svn=level.tcb.pcesvn,
        status=level.tcbStatus,
        date=level.tcbDate.astimezone(UTC),
        advisories=tuple(level.advisoryIDs),
    )


def _enclave_levels(levels: list[_EnclaveLevel]) -> tuple[EnclaveLevel, ...]:
    read = [
        EnclaveLevel(each.tcb.isvsvn, TcbStatus(each.tcbStatus), each.tcbDate.astimezone(UTC), tuple(each.advisoryIDs))
        for each in levels
    ]
    return tuple(sorted(read, key=lambda level: level.isv_svn, reverse=True))


def _module(module: _Module) -> TdxModule:
    return TdxModule(
        mr_signer=bytes.fromhex(module.mrsigner),
        attributes=bytes.fromhex(module.attributes),
        attributes_mask=bytes.fromhex(module.attributesMask),
        levels=_enclave_levels(module.tcbLevels) if isinstance(module, _ModuleIdentity) else (),
    )
