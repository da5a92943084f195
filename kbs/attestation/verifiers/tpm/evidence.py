"""TPM evidence as guests send it (verifiers 6.1): JSON in, octets and parsed structures out. Nothing is trusted yet.

Members: `ak_public` (DER SubjectPublicKeyInfo), `tpm_quote` with `signature` (TPMT_SIGNATURE), `message` (TPMS_ATTEST)
and `pcrs` (24 texts of 64 hex digits); all but the PCR values in base64. Optional and not sent by upstream's guests:
`ak_certificate` and `ak_certificate_chain` (DER, the latter a list without the root), `event_log` (TCG2 log),
`cc_eventlog` (the attestation agent's log of runtime events, guest-components 5.6) and `ima_log` (IMA's measurement
list, as text or in binary). Other members are not looked at, so that newer guests keep working.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.model import Json
from kbs.attestation.tpm.keys import MAX_KEY_SIZE
from kbs.attestation.tpm.pcrs import ALL_PCRS
from kbs.attestation.tpm.quote import Quote, parse_quote
from kbs.attestation.tpm.signature import Signature, parse_signature
from kbs.errors import EvidenceMalformed

_MAX_STRUCTURE: Final = 2048  # octets of a quote or signature
_MAX_CERTIFICATE: Final = 8192
_MAX_CHAIN: Final = 4  # certificates between an attestation key's and the root
_MAX_LOG: Final = 4 << 20
_VALUE: Final = 64  # hex digits of a PCR value


@dataclass(frozen=True, slots=True)
class Presented:
    """One piece of evidence, parsed.

    ak: DER as sent. message: the signed octets, of which `quote` is the reading. values: as listed. chain: certificates
    in DER, not parsed, the attestation key's own first and perhaps with zeros behind it; empty when none is sent.
    """

    ak: bytes
    message: bytes
    quote: Quote
    signature: Signature
    values: tuple[bytes, ...]
    chain: tuple[bytes, ...]
    event_log: bytes | None
    agent_log: bytes | None
    ima_log: bytes | None


def read(body: Json) -> Presented:
    """Take the evidence apart.

    Raises:
        EvidenceMalformed: a member is missing, of another type or size, or does not parse.
    """
    evidence = _object(body, "TPM evidence")
    quote = _object(evidence.get("tpm_quote"), "tpm_quote")
    message = _octets(quote.get("message"), "message", _MAX_STRUCTURE)
    return Presented(
        ak=_octets(evidence.get("ak_public"), "ak_public", MAX_KEY_SIZE),
        message=message,
        quote=parse_quote(message),
        signature=parse_signature(_octets(quote.get("signature"), "signature", _MAX_STRUCTURE)),
        values=_values(quote.get("pcrs")),
        chain=_chain(evidence.get("ak_certificate"), evidence.get("ak_certificate_chain")),
        event_log=_log(evidence, "event_log"),
        agent_log=_log(evidence, "cc_eventlog"),
        ima_log=_log(evidence, "ima_log"),
    )


def _log(evidence: Mapping[str, Any], name: str) -> bytes | None:
    log = evidence.get(name)
    return None if log is None else _octets(log, name, _MAX_LOG)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EvidenceMalformed(f"{name} is not an object")
    return value


def _octets(value: Any, name: str, most: int) -> bytes:
    if not isinstance(value, str) or not 0 < len(value) <= (most + 2) // 3 * 4:
        raise EvidenceMalformed(f"{name} is not a text of fitting length")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise EvidenceMalformed(f"{name} is not base64") from None


def _values(value: Any) -> tuple[bytes, ...]:
    """One value each, of one length: hex of another length, or with blanks in it, never adds up to the same octets."""
    if not isinstance(value, list) or len(value) != len(ALL_PCRS):
        raise EvidenceMalformed("pcrs is not a list of 24 values")
    if not all(isinstance(text, str) and len(text) == _VALUE for text in value):
        raise EvidenceMalformed("a PCR value is not a text of 64 hex digits")
    try:
        found = tuple(map(bytes.fromhex, value))
    except ValueError:
        raise EvidenceMalformed("a PCR value is not hex") from None
    if any(2 * len(octets) != _VALUE for octets in found):
        raise EvidenceMalformed("a PCR value is not hex alone")
    return found


def _chain(leaf: Any, others: Any) -> tuple[bytes, ...]:
    if leaf is None and others is None:
        return ()
    others = [] if others is None else others
    if not isinstance(others, list) or len(others) > _MAX_CHAIN:
        raise EvidenceMalformed("ak_certificate_chain is not a short list")
    return tuple(_octets(value, "certificate of the attestation key", _MAX_CERTIFICATE) for value in (leaf, *others))
