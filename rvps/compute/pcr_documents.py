"""Documents that others make about PCRs: values of pod VM images, and policies that an image's maker signed.

Nothing in them is signed for us; whoever runs the command vouches for the file, and signs what comes out.

Source: rvps 12.7; systemd-measure(1) for its JSON and `.pcrsig`; TPM 2.0 Library, Part 3, 23.7 (TPM2_PolicyPCR).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any, Final

from rvps.compute.pcr import BANKS
from rvps.errors import ArtifactUnusable
from rvps.strict_json import NotStrictJson, decode

MAX_DOCUMENT: Final = 1 << 20  # bytes
_PCRS: Final = range(24)
_NAME: Final = re.compile(r"(?:pcr)?([0-9]{1,2})", re.ASCII)
_POLICY_PCR: Final = 0x17F  # TPM_CC_PolicyPCR
_ALGORITHMS: Final = {"sha256": 0x000B, "sha384": 0x000C}
_UNUSED: Final = (b"\0", b"\xff")


def read_values(raw: bytes, bank: str) -> dict[int, list[bytes]]:
    """PCR values out of `measurements.json` of a pod VM image, or what `systemd-measure calculate --json` prints.

    Forms: `{"measurements": {BANK: {"pcr11": "0x…"}}}`, the same without the outer member or without the bank, names
    `pcr11` or `11`, digits with or without `0x`; and `{BANK: [{"phase", "pcr", "hash"}]}`.

    Raises:
        ArtifactUnusable: another form, a value of another size, a PCR twice, a PCR that nothing was extended into, a
            signed policy (it holds no values), or nothing of this bank.
    """
    document = _document(raw)
    if isinstance(document, dict) and document.keys() == {"measurements"}:
        document = document["measurements"]
    if not isinstance(document, dict):
        raise ArtifactUnusable("measurements: not an object of PCR values")
    if not document.keys().isdisjoint({"sha1", "sha256", "sha384", "sha512"}):
        if bank not in document:
            raise ArtifactUnusable(f"measurements: nothing of the {bank} bank")
        document = document[bank]
    if isinstance(document, list):
        return _phases(document, bank)
    if not isinstance(document, dict) or not document:
        raise ArtifactUnusable("measurements: not an object of PCR values")
    values: dict[int, list[bytes]] = {}
    for name, text in document.items():
        found = _NAME.fullmatch(name)
        number = int(found[1]) if found else -1
        if number not in _PCRS or number in values:
            raise ArtifactUnusable("measurements: a member names no PCR from 0 to 23, or one a second time")
        values[number] = [_value(text, bank, number)]
    return dict(sorted(values.items()))


def read_policies(raw: bytes, bank: str) -> dict[int, set[bytes]]:
    """The policies of a `.pcrsig` document about one PCR each: which policy digests were signed for it.

    The signatures are not checked: this is for comparing a build with what its maker meant, not for trust.

    Raises:
        ArtifactUnusable: another form, or nothing of this bank.
    """
    document = _document(raw)
    entries = document.get(bank) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ArtifactUnusable(f"pcrsig: no list of policies for the {bank} bank")
    policies: dict[int, set[bytes]] = {}
    for entry in entries:
        pcrs = entry.get("pcrs") if isinstance(entry, dict) else None
        if not isinstance(pcrs, list) or len(pcrs) != 1 or type(pcrs[0]) is not int or pcrs[0] not in _PCRS:
            raise ArtifactUnusable("pcrsig: only policies about one PCR are read")
        policies.setdefault(pcrs[0], set()).add(_hex(entry.get("pol"), BANKS["sha256"], "pcrsig: a policy"))
    return policies


def is_signed_policy(raw: bytes) -> bool:
    """Whether a document is a `.pcrsig` one. Raises ArtifactUnusable when it is no JSON."""
    document = _document(raw)
    lists = document.values() if isinstance(document, dict) else ()
    return any(isinstance(one, list) and one and isinstance(one[0], dict) and "pol" in one[0] for one in lists)


def policy_of(number: int, value: bytes, bank: str) -> bytes:
    """The digest of a policy session in which PCR `number` of `bank` has this value; SHA-256 is the session's."""
    selection = struct.pack(">IHB", 1, _ALGORITHMS[bank], 3) + (1 << number).to_bytes(3, "little")
    session = bytes(32) + struct.pack(">I", _POLICY_PCR) + selection + hashlib.sha256(value).digest()
    return hashlib.sha256(session).digest()


def _phases(entries: list[Any], bank: str) -> dict[int, list[bytes]]:
    if any(isinstance(entry, dict) and "pol" in entry for entry in entries):
        raise ArtifactUnusable("measurements: a signed policy holds no PCR values; give it with --uki to compare them")
    values: dict[int, list[bytes]] = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.get("pcr") not in _PCRS or type(entry.get("pcr")) is not int:
            raise ArtifactUnusable("measurements: an entry without its PCR")
        value = _value(entry.get("hash"), bank, entry["pcr"])
        if value not in values.setdefault(entry["pcr"], []):
            values[entry["pcr"]].append(value)
    if not values:
        raise ArtifactUnusable("measurements: an empty list")
    return dict(sorted(values.items()))


def _value(text: object, bank: str, number: int) -> bytes:
    value = _hex(text, BANKS[bank], f"measurements: PCR {number}")
    if value in (one * BANKS[bank] for one in _UNUSED):
        raise ArtifactUnusable(f"measurements: PCR {number} is one that nothing was measured into")
    return value


def _hex(text: object, size: int, what: str) -> bytes:
    digits = text.removeprefix("0x") if isinstance(text, str) else ""
    if len(digits) != 2 * size or not re.fullmatch("[0-9a-fA-F]*", digits):
        raise ArtifactUnusable(f"{what} is not {2 * size} hex digits")
    return bytes.fromhex(digits)


def _document(raw: bytes) -> Any:
    try:
        return decode(raw, max_bytes=MAX_DOCUMENT, max_depth=8)
    except NotStrictJson as err:
        raise ArtifactUnusable(f"not a document about PCRs: {err}") from err
