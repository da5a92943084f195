"""DCU reports: the signed bytes, rebuilt from what a guest sends, and what they say. Little-endian.

Source: evidence of the guest components for `hygondcu`; verifiers 8.6.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.hygon.certificates import SM2_SA, Usage, signature
from kbs.attestation.hygon.json_form import as_object, child, components, member, octets, uint
from kbs.attestation.hygon.sm2 import Signature
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

_BODY: Final = struct.Struct("<I16s64s32s128sII")
_VERSION: Final = 1
_CHIP_ID: Final = re.compile(rb"([A-Za-z0-9]{1,16})[ \0]*")
_MAX_REPORTS: Final = 64  # devices of one guest; each costs an SM2 verification


@dataclass(frozen=True, slots=True)
class Report:
    """One device's report, nothing of it verified. Byte fields are raw.

    signed: the 252 bytes that the signature covers. chip: `chip_id` without its padding, letters and digits.
    """

    signed: bytes
    signature: Signature
    chip: str
    version: int
    chip_id: bytes
    user_data: bytes
    measure: bytes
    reserved: bytes
    sig_usage: int
    sig_algo: int


def read(body: Any) -> tuple[Report, ...]:
    """All reports of one guest, at least one, each of another chip.

    Raises:
        EvidenceMalformed: a member missing, of a wrong type, length or range; no report; a chip twice; a chip id that
            is no such thing.
        EvidenceVersionUnsupported: an unknown version or signature algorithm.
    """
    listed = member(as_object(body, "DCU evidence"), "attestation_reports")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_REPORTS:
        raise EvidenceMalformed("attestation_reports is not a short list of at least one")
    reports = tuple(map(_read, listed))
    if len({report.chip for report in reports}) != len(reports):
        raise EvidenceMalformed("two DCU reports are of one chip")
    return reports


def _read(value: Any) -> Report:
    whole = as_object(value, "DCU report")
    body = child(whole, "body")
    fields = (
        uint(body, "version", 32),
        octets(body, "chip_id", 16),
        octets(body, "user_data", 64),
        octets(body, "measure", 32),
        octets(body, "reserved", 128),
        uint(body, "sig_usage", 32),
        uint(body, "sig_algo", 32),
    )
    version, chip_id, *_, usage, algorithm = fields
    if version != _VERSION or usage != Usage.CEK or algorithm != SM2_SA:
        raise EvidenceVersionUnsupported("DCU report is of an unknown version, or not signed by a CEK with SM2")
    chip = _CHIP_ID.fullmatch(chip_id)
    if chip is None:
        raise EvidenceMalformed("DCU chip id is not made of letters and digits")
    return Report(_BODY.pack(*fields), signature(*components(whole, "sig")), chip[1].decode("ascii"), *fields)
