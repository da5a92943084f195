"""Attestation documents of the Nitro hypervisor, read without trusting any of it.

Both kinds have one form; they differ in the name and meaning of their registers. `pcrs` are measurements of an enclave,
`nitrotpm_pcrs` those of the TPM of a whole instance. A document has exactly one of the two.

Source: AWS Nitro Enclaves user guide, "Verifying the root of trust"; aws-nitro-enclaves-nsm-api, attestation process;
Amazon EC2 user guide, "Validate a NitroTPM Attestation Document".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from kbs.attestation.cose import MAX_SIZE, Algorithm, Cbor, Sign1, decode, read_sign1
from kbs.errors import EvidenceMalformed, EvidenceVersionUnsupported

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND: Final = 253_402_300_799_999  # of the year 9999, which is as far as a datetime goes
_DIGEST: Final = "SHA384"
_DSTACK: Final = b"\x00\x02"  # how dstack's attestation file begins that holds a document: version, kind
_REGISTER_SIZE: Final = 48
_MAX_REGISTERS: Final = 32
_MAX_MODULE_ID: Final = 256  # characters; a real one has 39
_MAX_CERTIFICATE: Final = 1024
_MAX_BUNDLE: Final = 8
_MAX_PUBLIC_KEY: Final = 1024
_MAX_USER_DATA: Final = 1024  # octets; NSM takes 512, NitroTPM 1024


class Kind(StrEnum):
    """What the registers measure."""

    ENCLAVE = "enclave"
    NITROTPM = "nitrotpm"


_REGISTERS: Final = {"pcrs": Kind.ENCLAVE, "nitrotpm_pcrs": Kind.NITROTPM}


@dataclass(frozen=True, slots=True)
class Document:
    """The signed payload. `public_key`, `user_data` and `nonce` are None when absent or null."""

    kind: Kind
    module_id: str
    time: datetime
    registers: Mapping[int, bytes]
    certificate: bytes = field(repr=False)
    bundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    nonce: bytes | None = field(repr=False)


def read_message(body: Any, *, allow_trailing_bytes: bool) -> Sign1:
    """The COSE message in evidence: `{"document": base64}`, or its octets themselves.

    Args:
        allow_trailing_bytes: of the octets, ignore what follows the message.

    Raises:
        EvidenceMalformed: not such a message.
        EvidenceVersionUnsupported: not signed with ES384, the only algorithm that AWS uses.
    """
    if isinstance(body, bytes):
        message = read_sign1(_unwrapped(body), allow_trailing_bytes=allow_trailing_bytes)
    else:
        message = read_sign1(_octets_of(body))
    if message.algorithm is not Algorithm.ES384:
        raise EvidenceVersionUnsupported("Nitro document is not signed with ES384")
    return message


def _unwrapped(raw: bytes) -> bytes:
    """A raw document, taken out of dstack's attestation file where it stands in one: version 0, kind 2 (Nitro), length
    as a compact integer of two octets in SCALE, the document; what else the file holds is nothing that AWS vouches for.
    """
    if not raw.startswith(_DSTACK) or len(raw) < len(_DSTACK) + 2:
        return raw
    compact = int.from_bytes(raw[2:4], "little")
    size = compact >> 2
    return raw[4 : 4 + size] if compact & 3 == 1 and len(raw) >= 4 + size else raw


def _octets_of(body: Any) -> bytes:
    text = body.get("document") if isinstance(body, dict) else None
    if not isinstance(text, str) or not 0 < len(text) <= MAX_SIZE * 4 // 3 + 4:
        raise EvidenceMalformed("Nitro evidence without a document in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise EvidenceMalformed("Nitro document is not base64") from err


def read_document(payload: bytes) -> Document:
    """Read the payload of a document. Its writer uses CBOR of indefinite length.

    Raises:
        EvidenceMalformed: a mandatory member missing, or one of a wrong type, length or range.
        EvidenceVersionUnsupported: registers of another digest than SHA-384.
    """
    members = decode(payload, allow_indefinite=True)
    if not isinstance(members, Mapping):
        raise EvidenceMalformed("Nitro document is not a map")
    kinds = [name for name in _REGISTERS if name in members]
    if len(kinds) != 1:
        raise EvidenceMalformed("Nitro document with other than one set of registers")
    if members.get("digest") != _DIGEST:
        raise EvidenceVersionUnsupported("Nitro document of another digest than SHA384")
    module_id = members.get("module_id")
    if not isinstance(module_id, str) or not 0 < len(module_id) <= _MAX_MODULE_ID:
        raise EvidenceMalformed("Nitro document without a module id")
    bundle = members.get("cabundle")
    if not isinstance(bundle, list | tuple) or not 0 < len(bundle) <= _MAX_BUNDLE:
        raise EvidenceMalformed("Nitro document without a short list of certificates")
    return Document(
        kind=_REGISTERS[kinds[0]],
        module_id=module_id,
        time=_time(members.get("timestamp")),
        registers=_registers(members[kinds[0]]),
        certificate=_octets(members.get("certificate"), "certificate", 1, _MAX_CERTIFICATE),
        bundle=tuple(_octets(each, "cabundle", 1, _MAX_CERTIFICATE) for each in bundle),
        public_key=_optional(members, "public_key", 1, _MAX_PUBLIC_KEY),
        user_data=_optional(members, "user_data", 0, _MAX_USER_DATA),
        nonce=_optional(members, "nonce", 0, _MAX_USER_DATA),
    )


def _time(value: Cbor) -> datetime:
    if type(value) is not int or not 0 < value <= _LAST_MILLISECOND:
        raise EvidenceMalformed("Nitro document without a time in milliseconds")
    return _EPOCH + timedelta(milliseconds=value)


def _registers(value: Cbor) -> Mapping[int, bytes]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MAX_REGISTERS:
        raise EvidenceMalformed("Nitro document without registers")
    for index, content in value.items():
        if type(index) is not int or not 0 <= index < _MAX_REGISTERS:
            raise EvidenceMalformed("Nitro document with a register that does not exist")
        _octets(content, "register", _REGISTER_SIZE, _REGISTER_SIZE)
    return dict(sorted(value.items()))


def _octets(value: Cbor, name: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise EvidenceMalformed(f"{name} of the Nitro document is missing or of a wrong type or length")
    return value


def _optional(members: Mapping[Any, Cbor], name: str, least: int, most: int) -> bytes | None:
    value = members.get(name)
    return None if value is None else _octets(value, name, least, most)
