"""What a guest sends for CSV: a report, the PEK, perhaps HSK and CEK, a serial number, perhaps an event log.

Source: evidence of the guest components for `csv`; verifiers 8.1.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.hygon.json_form import as_object, ca_certificate, child, csv_certificate, member, octets, uint
from kbs.attestation.verifiers.csv.report import REPORT_SIZE, SERIAL_SIZE, Report, parse
from kbs.errors import ChainInvalid, EvidenceMalformed, TcbMismatch

_SERIAL: Final = re.compile(rb"([A-Za-z0-9]{1,64})\0*")
_MAX_LOG: Final = 6 << 20  # characters of base64; the reader of event logs has its own, lower limit


@dataclass(frozen=True, slots=True)
class Presented:
    """Evidence taken apart. Nothing verified, but report, PEK and serial number belong together.

    pek: 2084 bytes. hsk_cek: 2916 bytes, or None when the evidence has none. serial: letters and digits.
    event_log: as sent, decoded; None when there is none.
    """

    report: Report
    pek: bytes
    hsk_cek: bytes | None
    serial: str
    event_log: bytes | None


def read(body: Any) -> Presented:
    """Take evidence apart.

    Args:
        body: the JSON object.

    Raises:
        EvidenceMalformed: a member missing, of a wrong type, length or range; a serial number that is no such thing.
        EvidenceVersionUnsupported: a report of an unknown version.
        ChainInvalid: the report names another PEK.
        TcbMismatch: the report names another serial number.
    """
    evidence = as_object(body, "CSV evidence")
    wrapper = child(evidence, "attestation_report")
    report = parse(octets(wrapper, "magic", 16), uint(wrapper, "flags", 32), octets(wrapper, "data", REPORT_SIZE))
    chain = child(evidence, "cert_chain")
    pek = csv_certificate(member(chain, "pek"))
    padded = octets(evidence, "serial_number", SERIAL_SIZE)
    serial = _serial(padded)
    _check_signer(report, pek, padded)
    return Presented(report, pek, _hsk_cek(chain.get("hsk_cek")), serial, _event_log(evidence.get("cc_eventlog")))


def _serial(padded: bytes) -> str:
    match = _SERIAL.fullmatch(padded)
    if match is None:
        raise EvidenceMalformed("CSV serial number is not made of letters and digits")
    return match[1].decode("ascii")


def _check_signer(report: Report, pek: bytes, serial: bytes) -> None:
    """Checks 2 and 3: the report's own words on its signer, in the form in which the PEK is the presented one."""
    for named_pek, named_serial in report.signer_forms():
        if hmac.compare_digest(named_pek, pek):
            if not hmac.compare_digest(named_serial, serial):
                raise TcbMismatch("serial number of the CSV report differs from the presented one")
            return
    raise ChainInvalid("CSV report names another PEK than the one presented")


def _hsk_cek(value: Any) -> bytes | None:
    if value is None:
        return None
    pair = as_object(value, "hsk_cek")
    return ca_certificate(member(pair, "hsk")) + csv_certificate(member(pair, "cek"))


def _event_log(value: Any) -> bytes | None:
    if value is None or value == "":  # what a guest sends that finds an empty log
        return None
    if not isinstance(value, str) or len(value) > _MAX_LOG:
        raise EvidenceMalformed("cc_eventlog is not a text, or too long")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as err:
        raise EvidenceMalformed("cc_eventlog is not base64") from err
