"""Intel's words for endorsements: names of SGX and TDX collateral, and what the items under them are.

Shared by the DCAP core, which builds the names from a parsed quote and reads the items, and by the endorsers, which
turn names into addresses and answers into items. Knows neither certificates nor the network, and checks no signature.

    intel/tcb/{sgx,tdx}/<fmspc, 12 lower hex>   TCB info                    `SignedDocument`
    intel/qe-identity/{sgx,tdx}                 identity of the quoting enclave `SignedDocument`
    intel/pck-crl/{platform,processor}          list of revoked PCK certificates `SignedList`
    intel/root-crl                              list of revoked intermediates, DER as it stands

Source: Intel PCS API v4; verifiers 2.7.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from kbs import strict_json
from kbs.errors import MalformedMessage, PayloadTooLarge

PREFIX: Final = "intel/"
ROOT_CRL: Final = "intel/root-crl"

_LIMITS: Final = strict_json.Limits(size=2 << 20, depth=2, tokens=8)


class IntelTee(StrEnum):
    """Which of the two documents: they differ for the same platform."""

    SGX = "sgx"
    TDX = "tdx"


class PckCa(StrEnum):
    """The intermediate that issued a PCK certificate: multi-package platforms, or single processors."""

    PLATFORM = "platform"
    PROCESSOR = "processor"


class TcbUpdate(StrEnum):
    """Which edition of TCB info and identities to ask for: at once, or when platforms had time to follow."""

    EARLY = "early"
    STANDARD = "standard"


@dataclass(frozen=True, slots=True)
class TcbRef:
    """TCB info of one platform family. `fmspc`: 6 bytes."""

    tee: IntelTee
    fmspc: bytes

    @property
    def name(self) -> str:
        """`intel/tcb/tdx/00806f050000`."""
        return tcb_name(self.tee, self.fmspc)


@dataclass(frozen=True, slots=True)
class QeIdentityRef:
    """Identity of the SGX QE or the TD QE."""

    tee: IntelTee

    @property
    def name(self) -> str:
        """`intel/qe-identity/tdx`."""
        return qe_identity_name(self.tee)


@dataclass(frozen=True, slots=True)
class PckCrlRef:
    """Revocation list of one PCK CA."""

    ca: PckCa

    @property
    def name(self) -> str:
        """`intel/pck-crl/platform`."""
        return pck_crl_name(self.ca)


@dataclass(frozen=True, slots=True)
class RootCrlRef:
    """Revocation list of the root."""

    @property
    def name(self) -> str:
        """`intel/root-crl`."""
        return ROOT_CRL


IntelRef = TcbRef | QeIdentityRef | PckCrlRef | RootCrlRef

_TCB_NAME: Final = re.compile("intel/tcb/(?P<tee>sgx|tdx)/(?P<fmspc>[0-9a-f]{12})")
_QE_NAME: Final = re.compile("intel/qe-identity/(?P<tee>sgx|tdx)")
_CRL_NAME: Final = re.compile("intel/pck-crl/(?P<ca>platform|processor)")


def tcb_name(tee: IntelTee, fmspc: bytes) -> str:
    """Name of a platform's TCB info. `fmspc`: 6 bytes, from the PCK certificate."""
    if len(fmspc) != 6:
        raise ValueError("an FMSPC has 6 bytes")
    return f"intel/tcb/{tee}/{fmspc.hex()}"


def qe_identity_name(tee: IntelTee) -> str:
    """Name of a quoting enclave's identity."""
    return f"intel/qe-identity/{tee}"


def pck_crl_name(ca: PckCa) -> str:
    """Name of a PCK CA's revocation list."""
    return f"intel/pck-crl/{ca}"


def parse_name(name: str) -> IntelRef:
    """Read a name back; nothing else has a meaning.

    Raises:
        ValueError: any other text.
    """
    if match := _TCB_NAME.fullmatch(name):
        return TcbRef(IntelTee(match["tee"]), bytes.fromhex(match["fmspc"]))
    if match := _QE_NAME.fullmatch(name):
        return QeIdentityRef(IntelTee(match["tee"]))
    if match := _CRL_NAME.fullmatch(name):
        return PckCrlRef(PckCa(match["ca"]))
    if name == ROOT_CRL:
        return RootCrlRef()
    raise ValueError("not a name of an Intel endorsement")


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document as the service sent it. Nothing in it has been checked.

    issuer_chain: PEM certificates of the signer, from the answer's head, decoded.
    body: `{"tcbInfo"|"enclaveIdentity":{…},"signature":"<128 hex>"}`, every character as served: the signature is over
        the inner object's exact bytes.
    """

    issuer_chain: str
    body: str


@dataclass(frozen=True, slots=True)
class SignedList:
    """A PCK revocation list with its issuer's chain. Nothing in it has been checked.

    issuer_chain: PEM certificates. crl: DER.
    """

    issuer_chain: str
    crl: bytes


def pack_document(document: SignedDocument) -> bytes:
    """The item under `intel/tcb/…` and `intel/qe-identity/…`."""
    return strict_json.encode({"issuer_chain": document.issuer_chain, "body": document.body})


def unpack_document(item: bytes) -> SignedDocument:
    """Read such an item.

    Raises:
        ValueError: not one.
    """
    chain, body = _two_texts(item, "body")
    return SignedDocument(chain, body)


def pack_list(signed: SignedList) -> bytes:
    """The item under `intel/pck-crl/…`."""
    return strict_json.encode(
        {"issuer_chain": signed.issuer_chain, "crl": base64.b64encode(signed.crl).decode("ascii")}
    )


def unpack_list(item: bytes) -> SignedList:
    """Read such an item.

    Raises:
        ValueError: not one.
    """
    chain, crl = _two_texts(item, "crl")
    try:
        return SignedList(chain, base64.b64decode(crl, validate=True))
    except (binascii.Error, ValueError) as err:
        raise ValueError("collateral: the list is not base64") from err


def items_from_bundle(bundle: Mapping[str, Any], tee: IntelTee, fmspc: bytes, ca: PckCa) -> dict[str, bytes]:
    """The items of a collateral bundle as DCAP libraries keep it, named for one quote's platform.

    Args:
        bundle: `pck_crl_issuer_chain`, `tcb_info_issuer_chain`, `qe_identity_issuer_chain` (PEM), `root_ca_crl`,
            `pck_crl` (DER in hex), `tcb_info`, `qe_identity` (the signed inner text), `tcb_info_signature`,
            `qe_identity_signature` (hex). Absent members leave their item out; others are ignored.
        fmspc: 6 bytes.

    Raises:
        ValueError: a member that is no text, or not hex.
    """
    items: dict[str, bytes] = {}
    if "root_ca_crl" in bundle:
        items[ROOT_CRL] = bytes.fromhex(_text(bundle, "root_ca_crl"))
    if "pck_crl" in bundle:
        signed = SignedList(_text(bundle, "pck_crl_issuer_chain"), bytes.fromhex(_text(bundle, "pck_crl")))
        items[pck_crl_name(ca)] = pack_list(signed)
    for member, outer, name in (
        ("tcb_info", "tcbInfo", tcb_name(tee, fmspc)),
        ("qe_identity", "enclaveIdentity", qe_identity_name(tee)),
    ):
        if member in bundle:
            signature = bytes.fromhex(_text(bundle, f"{member}_signature")).hex()
            body = f'{{"{outer}":{_text(bundle, member)},"signature":"{signature}"}}'
            items[name] = pack_document(SignedDocument(_text(bundle, f"{member}_issuer_chain"), body))
    return items


def _two_texts(item: bytes, other: str) -> tuple[str, str]:
    try:
        value = strict_json.decode(item, limits=_LIMITS)
    except (MalformedMessage, PayloadTooLarge) as err:
        raise ValueError("collateral: not an item of this kind") from err
    if not isinstance(value, dict) or value.keys() != {"issuer_chain", other}:
        raise ValueError("collateral: not an item of this kind")
    chain, second = value["issuer_chain"], value[other]
    if not isinstance(chain, str) or not isinstance(second, str):
        raise ValueError("collateral: not an item of this kind")
    return chain, second


def _text(bundle: Mapping[str, Any], member: str) -> str:
    value = bundle.get(member)
    if not isinstance(value, str):
        raise ValueError(f"collateral: {member} is not text")
    return value
