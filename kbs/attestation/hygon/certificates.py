"""Hygon's two certificate forms, read without trusting them. Little-endian, numbers of SM2 in 72 bytes.

The CA form holds the root key (HRK) and the key that signs chips (HSK), the CSV form a chip's keys (CEK, PEK).

Source: Hygon CSV API specification, certificate formats; verifiers 8.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kbs.attestation.hygon.sm2 import PublicKey, Signature, public_key
from kbs.errors import ChainInvalid

CA_SIZE: Final = 832  # bytes
CSV_SIZE: Final = 2084  # bytes
COMPONENT_SIZE: Final = 72  # bytes of x, y, r and s
SM2_SA: Final = 4  # signature algorithm: SM2 with SM3
CURVE_SM2: Final = 3

CA_LAYOUT: Final = struct.Struct("<I16s16sI24sI72s72sH254s108s72s72s112s")
CSV_LAYOUT: Final = struct.Struct("<IBBHIII72s72sH254s16s608s")
SLOT_LAYOUT: Final = struct.Struct("<II72s72s368s")
CA_SIGNED: Final = 576  # bytes
CSV_SIGNED: Final = CSV_LAYOUT.size  # 1044 bytes; two slots follow
_VERSION: Final = 1


class Usage(IntEnum):
    """What a key is for, and what a signature slot was made with."""

    HRK = 0
    HSK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


@dataclass(frozen=True, slots=True)
class CaCertificate:
    """HRK or HSK. `signed`: the bytes that `signature` covers."""

    usage: int
    key: PublicKey
    signed: bytes
    signature: Signature


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the two signatures of a certificate in CSV form; `usage` says whose it claims to be."""

    usage: int
    algorithm: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class CsvCertificate:
    """CEK or PEK. `signed`: the bytes that each slot's signature covers."""

    usage: int
    key: PublicKey
    signed: bytes
    slots: tuple[Slot, Slot]

    def signature_of(self, signer: Usage) -> Signature:
        """The signature that names this kind of signer.

        Raises:
            ChainInvalid: none or two of them, or one of another algorithm.
        """
        found = [slot for slot in self.slots if slot.usage == signer]
        if len(found) != 1 or found[0].algorithm != SM2_SA:
            raise ChainInvalid("Hygon certificate does not have the one signature expected")
        return found[0].signature


def parse_ca(raw: bytes, usage: Usage) -> CaCertificate:
    """Read an HRK or HSK.

    Args:
        raw: exactly `CA_SIZE` bytes.
        usage: what it has to be.

    Raises:
        ChainInvalid: another length, version, usage or curve, or a key that is no point.
    """
    if len(raw) != CA_SIZE:
        raise ChainInvalid("Hygon CA certificate of a wrong length")
    version, _, _, found, _, curve, x, y, size, user_id, _, r, s, _ = CA_LAYOUT.unpack(raw)
    if version != _VERSION or found != usage:
        raise ChainInvalid("Hygon CA certificate is of another version or usage")
    key = _key(curve, x, y, size, user_id)
    return CaCertificate(found, key, raw[:CA_SIGNED], signature(r, s))


def parse_csv(raw: bytes, usage: Usage) -> CsvCertificate:
    """Read a CEK or PEK.

    Args:
        raw: exactly `CSV_SIZE` bytes.
        usage: what it has to be.

    Raises:
        ChainInvalid: another length, version, usage, algorithm or curve, or a key that is no point.
    """
    if len(raw) != CSV_SIZE:
        raise ChainInvalid("Hygon certificate of a wrong length")
    version, _, _, _, found, algorithm, curve, x, y, size, user_id, _, _ = CSV_LAYOUT.unpack_from(raw)
    if version != _VERSION or found != usage or algorithm != SM2_SA:
        raise ChainInvalid("Hygon certificate is of another version, usage or algorithm")
    key = _key(curve, x, y, size, user_id)
    first, second = (_slot(raw, CSV_SIGNED + index * SLOT_LAYOUT.size) for index in (0, 1))
    return CsvCertificate(found, key, raw[:CSV_SIGNED], (first, second))


def signature(r: bytes, s: bytes) -> Signature:
    """A signature from two little-endian numbers, whatever their size."""
    return Signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))


def _slot(raw: bytes, offset: int) -> Slot:
    usage, algorithm, r, s, _ = SLOT_LAYOUT.unpack_from(raw, offset)
    return Slot(usage, algorithm, signature(r, s))


def _key(curve: int, x: bytes, y: bytes, size: int, user_id: bytes) -> PublicKey:
    if curve != CURVE_SM2:
        raise ChainInvalid("Hygon certificate has a key of another curve")
    if size > len(user_id):
        raise ChainInvalid("Hygon certificate has a user id longer than its field")
    return public_key(int.from_bytes(x, "little"), int.from_bytes(y, "little"), user_id[:size])
