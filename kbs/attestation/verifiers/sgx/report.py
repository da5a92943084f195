"""What an enclave's report must say and what is told of it.

Source: Intel SDM vol. 3D, REPORT and ATTRIBUTES; verifiers 2.4 and 2.8 step 19. Claims: attestation-service 6.4.
"""

from __future__ import annotations

from typing import Final

from kbs.attestation.dcap import EnclaveReport, Quote
from kbs.attestation.model import Json
from kbs.errors import EvidenceMalformed

_INIT: Final = 1 << 0
_DEBUG: Final = 1 << 1
_MODE64: Final = 1 << 2


def enclave_of(quote: Quote) -> EnclaveReport:
    """The enclave's report.

    Raises:
        EvidenceMalformed: the quote is a TD's.
    """
    if not isinstance(quote.body, EnclaveReport):
        raise EvidenceMalformed("quote is not of an SGX enclave")
    return quote.body


def check_enclave(body: EnclaveReport) -> None:
    """Step 19, as far as no policy is asked: an initialised enclave of 64 bits.

    Raises:
        EvidenceMalformed.
    """
    flags = int.from_bytes(body.flags, "little")
    if not flags & _INIT or not flags & _MODE64:
        raise EvidenceMalformed("quote is of an enclave that is not initialised, or not of 64 bits")


def enclave_claims(quote: Quote, body: EnclaveReport) -> dict[str, Json]:
    """`header`, `body`, `report_data` and `init_data`; lower-case hex in the order on the wire. Own: `debug`."""
    return {
        "header": _header_claims(quote.header),
        "body": _body_claims(body),
        "report_data": body.report_data.hex(),
        "init_data": body.config_id.hex(),
        "debug": bool(int.from_bytes(body.flags, "little") & _DEBUG),
    }


def _header_claims(header: bytes) -> dict[str, Json]:
    text = header.hex()
    return {
        "version": text[:4],
        "att_key_type": text[4:8],
        "att_key_data_0": text[8:16],
        "qe_svn": text[16:20],
        "pce_svn": text[20:24],
        "vendor_id": text[24:56],
        "user_data": text[56:],
    }


def _body_claims(body: EnclaveReport) -> dict[str, Json]:
    text = body.raw.hex()
    claims: dict[str, Json] = {}
    position = 0
    for name, size in _FIELDS.items():
        claims[name] = text[position : position + 2 * size]
        position += 2 * size
    return claims


_FIELDS: Final = {  # in the order of the report, with their size in bytes; the dots are part of two names
    "cpu_svn": 16, "misc_select": 4, "reserved1": 12, "isv_ext_prod_id": 16, "attributes.flags": 8,
    "attributes.xfrm": 8, "mr_enclave": 32, "reserved2": 32, "mr_signer": 32, "reserved3": 32, "config_id": 64,
    "isv_prod_id": 2, "isv_svn": 2, "config_svn": 2, "reserved4": 42, "isv_family_id": 16, "report_data": 64,
}  # fmt: skip
