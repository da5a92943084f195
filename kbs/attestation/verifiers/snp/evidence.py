"""What a guest sends for SNP: the report as a JSON object, and certificates that its host put beside it.

The JSON object is no more than a spelling of the report: it is turned back into the 1184 bytes (attestation-service
6.5), and every claim is read from those. Members that do not enter the bytes are ignored, so newer guests keep working.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VekKind
from kbs.attestation.sev.report import (
    BODY,
    COMPONENT_SIZE,
    REPORT_SIZE,
    VERSIONS,
    Report,
    encode_tcb,
    parse,
    product_of,
)
from kbs.attestation.sev.verification import Vek
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

_MAX_CERTIFICATES: Final = 16  # a host's table holds up to five kinds, and others by UUID
_MAX_CERTIFICATE: Final = 16 * 1024  # bytes; a real VEK has 1.4 KiB
_to_json: Final = msgspec.json.Encoder().encode
_LISTS: Final = (
    ("family_id", 16), ("image_id", 16), ("report_data", 64), ("measurement", 48), ("host_data", 32),
    ("id_key_digest", 48), ("author_key_digest", 48), ("report_id", 32), ("report_id_ma", 32), ("chip_id", 64),
)  # fmt: skip
_SEPARATE: Final = struct.Struct("".join(f"{size}s" for _, size in _LISTS) + 2 * f"{COMPONENT_SIZE}s")
_VEK_TYPES: Final = {"VCEK": VekKind.VCEK, "VLEK": VekKind.VLEK}


@dataclass(frozen=True, slots=True)
class Presented:
    """A report, and the one VEK that came with it, if any. Nothing verified."""

    report: Report
    vek: Vek | None


def read(body: Any, v2_product: AmdProduct | None, *, allow_trailing_bytes: bool = False) -> Presented:
    """Read evidence in either form.

    Args:
        body: the JSON object, or the raw report as bytes.
        v2_product: see `report.parse`.
        allow_trailing_bytes: of the raw form, ignore what follows the report (some tools pad it to a page).

    Raises:
        EvidenceMalformed, EvidenceVersionUnsupported.
    """
    if isinstance(body, bytes):
        raw = body[:REPORT_SIZE] if allow_trailing_bytes else body
        return Presented(parse(raw, v2_product), None)
    evidence = _object(body, "SNP evidence")
    report = parse(report_bytes(_member(evidence, "attestation_report"), v2_product), v2_product)
    return Presented(report, _only_vek(evidence.get("cert_chain")))


def report_bytes(value: Any, v2_product: AmdProduct | None) -> bytes:
    """Rebuild the report's bytes from its JSON object; reserved bytes become zero.

    Raises:
        EvidenceMalformed: a member missing, of a wrong type, length or range.
        EvidenceVersionUnsupported: a version or processor whose layout is not known.
    """
    report = _object(value, "attestation_report")
    version = _uint(report, "version", 32)
    if version not in VERSIONS:
        raise EvidenceVersionUnsupported("SNP report of an unknown version")
    family, model, stepping = (_optional(report, name, 8) for name in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"))
    # Only the TCB layout hangs on this; `parse` decides about the product again, from the bytes.
    product = product_of(family, model) if version >= 3 else v2_product or AmdProduct.MILAN
    signature = _object(_member(report, "signature"), "signature")
    (
        family_id, image_id, report_data, measurement, host_data, id_key_digest, author_key_digest, report_id,
        report_id_ma, chip_id, r, s,
    ) = _SEPARATE.unpack(_joined(report, signature))  # fmt: skip
    signed: bytes = BODY.pack(
        version,
        _uint(report, "guest_svn", 32),
        _uint(report, "policy", 64),
        family_id,
        image_id,
        _uint(report, "vmpl", 32),
        _uint(report, "sig_algo", 32),
        _tcb(report, "current_tcb", product),
        _uint(report, "plat_info", 64),
        _uint(report, "key_info", 32),
        0,
        report_data,
        measurement,
        host_data,
        id_key_digest,
        author_key_digest,
        report_id,
        report_id_ma,
        _tcb(report, "reported_tcb", product),
        family,
        model,
        stepping,
        bytes(21),
        chip_id,
        _tcb(report, "committed_tcb", product),
        *_firmware(report, "current"),
        *_firmware(report, "committed"),
        _tcb(report, "launch_tcb", product),
        _optional(report, "launch_mit_vector", 64),
        _optional(report, "current_mit_vector", 64),
    )
    return b"".join((signed, r, s)).ljust(REPORT_SIZE, b"\0")


def _only_vek(chain: Any) -> Vek | None:
    """The VCEK or VLEK of a certificate table. Roots and lists in it are not looked at: they are no anchors."""
    if chain is None:
        return None
    if not isinstance(chain, list) or len(chain) > _MAX_CERTIFICATES:
        raise EvidenceMalformed("cert_chain is not a short list")
    found: Vek | None = None
    for entry in chain:
        kind = _object(entry, "cert_chain entry").get("cert_type")
        if not isinstance(kind, str) or kind not in _VEK_TYPES:
            continue
        if found is not None:
            raise EvidenceMalformed("cert_chain has more than one endorsement key")
        data = entry.get("data")
        if not isinstance(data, list) or not 0 < len(data) <= _MAX_CERTIFICATE:
            raise EvidenceMalformed("cert_chain entry without usable data")
        found = Vek(_VEK_TYPES[kind], _octets(data, "cert_chain data"))
    return found


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EvidenceMalformed(f"{name} is not an object")
    return value


def _member(parent: Mapping[str, Any], name: str) -> Any:
    if name not in parent:
        raise EvidenceMalformed(f"{name} is missing")
    return parent[name]


def _uint(parent: Mapping[str, Any], name: str, bits: int) -> int:
    value = parent.get(name)
    if type(value) is not int or not 0 <= value < 1 << bits:  # a JSON true is an int to isinstance
        _member(parent, name)
        raise EvidenceMalformed(f"{name} is not an integer of {bits} bits")
    return value


def _optional(parent: Mapping[str, Any], name: str, bits: int) -> int:
    """An integer that older versions of the report do not have: null or absent reads as its reserved zero."""
    return 0 if parent.get(name) is None else _uint(parent, name, bits)


def _joined(report: Mapping[str, Any], signature: Mapping[str, Any]) -> bytes:
    """All members that are lists of octets, one after the other: read at once, since each check has a price."""
    joined: list[Any] = []
    for name, size in _LISTS:
        joined += _list(report, name, size)
    for name in ("r", "s"):
        joined += _list(signature, name, COMPONENT_SIZE)
    try:
        return _octets(joined, "attestation_report")
    except EvidenceMalformed:
        for name, size in _LISTS:  # once more one by one, to say which it is
            _octets(_list(report, name, size), name)
        raise EvidenceMalformed("signature has an element that is not a byte") from None


def _list(parent: Mapping[str, Any], name: str, size: int) -> list[Any]:
    value = parent.get(name)
    if not isinstance(value, list) or len(value) != size:
        _member(parent, name)
        raise EvidenceMalformed(f"{name} is not a list of {size} bytes")
    return value


def _octets(value: list[Any], name: str) -> bytes:
    try:
        octets = bytes(value)
    except TypeError as err:
        raise EvidenceMalformed(f"{name} has an element that is not an integer") from err
    except ValueError as err:
        raise EvidenceMalformed(f"{name} has an element beyond a byte") from err
    # A JSON true is 1 to `bytes`. Of octets, nothing else has a letter in JSON; this tells it the quickest.
    if b"e" in _to_json(value):
        raise EvidenceMalformed(f"{name} has an element that is not an integer")
    return octets


def _tcb(parent: Mapping[str, Any], name: str, product: AmdProduct) -> bytes:
    value = _object(_member(parent, name), name)
    fmc = _uint(value, "fmc", 8) if product is AmdProduct.TURIN else None
    bootloader, tee, snp, microcode = (_uint(value, part, 8) for part in ("bootloader", "tee", "snp", "microcode"))
    return encode_tcb(TcbVersion(bootloader, tee, snp, microcode, fmc), product)


def _firmware(parent: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    value = _object(_member(parent, name), name)
    return _uint(value, "build", 8), _uint(value, "minor", 8), _uint(value, "major", 8)
