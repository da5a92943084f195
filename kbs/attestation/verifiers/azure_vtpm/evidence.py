"""What a guest on Azure sends: a vTPM quote, the HCL report, and what stands behind its hardware report.

Three forms: version 0 says no version and spells octets as numbers, 1 and 2 say it and spell them in hex and base64url.
Members that are not used are ignored, so newer guests keep working. Each form may carry `cc_eventlog`, the log of
runtime events that the attestation agent keeps (base64; guest-components 5.6).

Source: verifiers 5.1.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.event_log.model import MAX_SIZE as MAX_LOG
from kbs.attestation.verifiers.azure_vtpm.hcl import MAX_HCL_REPORT
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

BOUND_VERSION: Final = 2  # from it on, user data in the HCL report carries the report data

_VERSIONS: Final[dict[Any, int]] = {1: 1, 2: 2, "1": 1, "2": 2}
_MAX_QUOTE: Final = 1024  # octets; with one bank and a nonce of 64 octets, 177
_MAX_SIGNATURE: Final = 512
_MAX_PCRS: Final = 24
_MAX_CERTIFICATE: Final = 16 * 1024
_MAX_TD_QUOTE: Final = 64 * 1024
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")


@dataclass(frozen=True, slots=True)
class TpmQuote:
    """A quote as it came: a TPMS_ATTEST, a bare RSA signature over it, and the values of PCR 0 and up."""

    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Presented:
    """Evidence of either TEE, spelled out; nothing in it read further.

    version: 0, 1 or 2. vcek: DER or PEM; None when the guest sent none. td_quote: empty for SNP. agent_log: None when
    the guest sent none.
    """

    version: int
    tpm_quote: TpmQuote
    hcl_report: bytes
    vcek: bytes | None = None
    td_quote: bytes = b""
    agent_log: bytes | None = None


def read_snp(body: Any, min_version: int) -> Presented:
    """Read evidence of `az-snp-vtpm`.

    Args:
        min_version: the number is the sender's choice, and a lower one leaves checks out.

    Raises:
        EvidenceMalformed, EvidenceVersionUnsupported (unknown, or below `min_version`).
    """
    evidence, version = _opened(body, min_version)
    if version == 0:
        quote, report = _quote_of_numbers(evidence.get("quote")), _numbers(evidence, "report", MAX_HCL_REPORT)
    else:
        quote, report = _quote_of_hex(evidence.get("tpm_quote")), _base64url(evidence, "hcl_report", MAX_HCL_REPORT)
    return Presented(version, quote, report, vcek=_vcek(evidence, version), agent_log=_agent_log(evidence))


def read_tdx(body: Any, min_version: int) -> Presented:
    """Read evidence of `az-tdx-vtpm`. Arguments and errors: `read_snp`."""
    evidence, version = _opened(body, min_version)
    if version == 0:
        quote = _quote_of_numbers(evidence.get("tpm_quote"))
        report = _numbers(evidence, "hcl_report", MAX_HCL_REPORT)
        td_quote = _numbers(evidence, "td_quote", _MAX_TD_QUOTE)
    else:
        quote = _quote_of_hex(evidence.get("tpm_quote"))
        report = _base64url(evidence, "hcl_report", MAX_HCL_REPORT)
        td_quote = _base64url(evidence, "td_quote", _MAX_TD_QUOTE)
    return Presented(version, quote, report, td_quote=td_quote, agent_log=_agent_log(evidence))


def _opened(body: Any, min_version: int) -> tuple[Mapping[str, Any], int]:
    if not isinstance(body, dict):
        raise EvidenceMalformed("Azure vTPM evidence is not an object")
    version = 0
    if "version" in body:
        stated = body["version"]
        if isinstance(stated, bool) or not isinstance(stated, int | str):
            raise EvidenceMalformed("version of the Azure vTPM evidence is not a number")
        if stated not in _VERSIONS:
            raise EvidenceVersionUnsupported("Azure vTPM evidence of an unknown version")
        version = _VERSIONS[stated]
    if version < min_version:
        raise EvidenceVersionUnsupported("Azure vTPM evidence of a version below the minimum")
    return body, version


def _quote_of_numbers(value: Any) -> TpmQuote:
    quote = _object(value)
    return TpmQuote(
        _numbers(quote, "message", _MAX_QUOTE),
        _numbers(quote, "signature", _MAX_SIGNATURE),
        tuple(_octets(each, "pcrs", 64) for each in _pcrs(quote)),
    )


def _quote_of_hex(value: Any) -> TpmQuote:
    quote = _object(value)
    return TpmQuote(
        _hex(quote.get("message"), "message", _MAX_QUOTE),
        _hex(quote.get("signature"), "signature", _MAX_SIGNATURE),
        tuple(_hex(each, "pcrs", 64) for each in _pcrs(quote)),
    )


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EvidenceMalformed("TPM quote is not an object")
    return value


def _pcrs(quote: Mapping[str, Any]) -> list[Any]:
    value = quote.get("pcrs")
    if not isinstance(value, list) or len(value) > _MAX_PCRS:
        raise EvidenceMalformed("pcrs is not a list of at most 24 values")
    return value


def _vcek(evidence: Mapping[str, Any], version: int) -> bytes | None:
    value = evidence.get("vcek")
    if value is None:
        return None
    if version > 0:
        return _base64url(evidence, "vcek", _MAX_CERTIFICATE)
    if not isinstance(value, str) or len(value) > _MAX_CERTIFICATE or not value.isascii():
        raise EvidenceMalformed("vcek is not a PEM text")
    return value.encode("ascii")


def _agent_log(evidence: Mapping[str, Any]) -> bytes | None:
    value = evidence.get("cc_eventlog")
    if value is None:
        return None
    if not isinstance(value, str) or 3 * len(value) > 4 * MAX_LOG + 12:
        raise EvidenceMalformed("cc_eventlog is not a text of fitting length")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise EvidenceMalformed("cc_eventlog is not base64") from None


def _numbers(parent: Mapping[str, Any], name: str, most: int) -> bytes:
    return _octets(parent.get(name), name, most)


def _octets(value: Any, name: str, most: int) -> bytes:
    if not isinstance(value, list) or len(value) > most or list(map(type, value)).count(int) != len(value):
        raise EvidenceMalformed(f"{name} is not a list of at most {most} numbers")
    try:
        return bytes(value)
    except ValueError:
        raise EvidenceMalformed(f"{name} has a number that is no octet") from None


def _hex(value: Any, name: str, most: int) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * most or _HEX.fullmatch(value) is None:
        raise EvidenceMalformed(f"{name} is not hex of at most {most} octets")
    return bytes.fromhex(value)


def _base64url(parent: Mapping[str, Any], name: str, most: int) -> bytes:
    """With the padding that belongs there or with none: guests do both. Otherwise in the one spelling there is."""
    value = parent.get(name)
    if not isinstance(value, str) or 3 * len(value) > 4 * most + 12 or _BASE64URL.fullmatch(value) is None:
        raise EvidenceMalformed(f"{name} is not base64url of at most {most} octets")
    bare = value.rstrip("=")
    padding = "=" * (-len(bare) % 4)
    if len(padding) == 3 or value not in (bare, bare + padding):
        raise EvidenceMalformed(f"{name} is cut base64url")
    found = base64.urlsafe_b64decode(bare + padding)
    if base64.urlsafe_b64encode(found).decode("ascii") != bare + padding:
        raise EvidenceMalformed(f"{name} is not base64url as it must be spelled")
    return found
