"""Hygon's certificates as guests spell them in JSON, turned back into the bytes that are signed.

Every claim and every check reads those bytes; the JSON is no more than a spelling. Members that do not enter them are
ignored, so newer guests keep working. The readers of single members serve the reports of CSV and DCU too.

Source: evidence of the guest components for `csv` and `hygondcu`; verifiers 8.1, 8.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbs.attestation.hygon.certificates import CA_LAYOUT, COMPONENT_SIZE, CSV_LAYOUT, SLOT_LAYOUT
from kbs.errors import EvidenceMalformed

Object = Mapping[str, Any]


def ca_certificate(value: Any) -> bytes:
    """An HSK, 832 bytes.

    Raises:
        EvidenceMalformed: a member missing, of a wrong type, length or range.
    """
    whole = as_object(value, "HSK")
    body = child(whole, "body")
    preamble = child(body, "preamble")
    data = child(preamble, "data")
    key = child(body, "pubkey")
    return CA_LAYOUT.pack(
        uint(preamble, "ver", 32),
        octets(data, "kid", 16),
        octets(data, "sid", 16),
        uint(data, "usage", 32),
        octets(data, "reserved", 24),
        uint(key, "g", 32),
        octets(key, "x", COMPONENT_SIZE),
        octets(key, "y", COMPONENT_SIZE),
        uint(body, "uid_size", 16),
        octets(body, "user_id", 254),
        octets(body, "reserved", 108),
        *components(whole, "signature"),
        octets(whole, "_reserved", 112),
    )


def csv_certificate(value: Any) -> bytes:
    """A CEK or PEK, 2084 bytes.

    Raises:
        EvidenceMalformed: a member missing, of a wrong type, length or range.
    """
    whole = as_object(value, "certificate")
    body = child(whole, "body")
    data = child(body, "data")
    firmware = child(data, "firmware")
    public = child(data, "pubkey")
    key = child(public, "key")
    signed = CSV_LAYOUT.pack(
        uint(body, "ver", 32),
        uint(firmware, "major", 8),
        uint(firmware, "minor", 8),
        uint(data, "reserved1", 16),
        uint(public, "usage", 32),
        uint(public, "algo", 32),
        uint(key, "g", 32),
        octets(key, "x", COMPONENT_SIZE),
        octets(key, "y", COMPONENT_SIZE),
        uint(data, "uid_size", 16),
        octets(data, "user_id", 254),
        octets(data, "sid", 16),
        octets(data, "reserved2", 608),
    )
    slots = member(whole, "sigs")
    if not isinstance(slots, list) or len(slots) != 2:
        raise EvidenceMalformed("sigs is not a list of two")
    return signed + b"".join(map(_slot, slots))


def _slot(value: Any) -> bytes:
    slot = as_object(value, "sigs entry")
    return SLOT_LAYOUT.pack(
        uint(slot, "usage", 32),
        uint(slot, "algo", 32),
        *components(slot, "signature"),
        octets(slot, "_reserved", 368),
    )


def components(parent: Object, name: str) -> tuple[bytes, bytes]:
    """Members `r` and `s` of a signature object, 72 bytes each, little-endian."""
    value = child(parent, name)
    return octets(value, "r", COMPONENT_SIZE), octets(value, "s", COMPONENT_SIZE)


def as_object(value: Any, name: str) -> Object:
    """`value` if it is an object, else EvidenceMalformed; so do all readers here."""
    if not isinstance(value, dict):
        raise EvidenceMalformed(f"{name} is not an object")
    return value


def member(parent: Object, name: str) -> Any:
    """A member that has to be there."""
    if name not in parent:
        raise EvidenceMalformed(f"{name} is missing")
    return parent[name]


def child(parent: Object, name: str) -> Object:
    """A member that is an object."""
    return as_object(member(parent, name), name)


def uint(parent: Object, name: str, bits: int) -> int:
    """A member that is an integer of at most this many bits."""
    value = member(parent, name)
    if type(value) is not int or not 0 <= value < 1 << bits:  # a JSON true is an int to isinstance
        raise EvidenceMalformed(f"{name} is not an integer of {bits} bits")
    return value


def octets(parent: Object, name: str, size: int) -> bytes:
    """A member that is a list of exactly `size` bytes."""
    value = member(parent, name)
    if not isinstance(value, list) or len(value) != size or list(map(type, value)).count(int) != size:
        raise EvidenceMalformed(f"{name} is not a list of {size} bytes")
    try:
        return bytes(value)
    except ValueError as err:
        raise EvidenceMalformed(f"{name} has an element beyond a byte") from err
