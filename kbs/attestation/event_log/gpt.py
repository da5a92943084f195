"""EV_EFI_GPT_EVENT: the partition table that firmware measured before it booted from a disk.

Source: TCG PC Client Platform Firmware Profile 1.06, 10.2.5 (UEFI_GPT_DATA); UEFI 2.10, 5.3.2 and 5.3.3.
"""

from __future__ import annotations

import struct
from typing import Final

from kbs.attestation.event_log import guid
from kbs.attestation.model import Json

MAX_PARTITIONS: Final = 128
_LAST_LBA: Final = (1 << 63) - 1  # a claim is a number of 64 bits, signed; disks end far before

_HEADER: Final = struct.Struct("<8s4xII4xQQQQ16sQIII")
_SIGNATURE: Final = b"EFI PART"
_HEADER_SIZE: Final = 92
_COUNT: Final = struct.Struct("<Q")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")


def decode(data: bytes) -> dict[str, Json]:
    """Disk and partitions: `gpt` {`disk`, `partitions` [{`number`, `type`, `guid`, `first_lba`, `last_lba`, `name`}]}.

    GUIDs are text in upper case, LBAs numbers; `number` counts from 1 in the order of the event.

    Raises:
        ValueError: not of this form, more than `MAX_PARTITIONS` partitions, or one beyond 2^63 blocks.
    """
    if len(data) < _HEADER.size + _COUNT.size:
        raise ValueError("partition table is cut")
    signature, header_size, _, _, _, _, _, disk, _, _, entry_size, _ = _HEADER.unpack_from(data)
    (count,) = _COUNT.unpack_from(data, _HEADER.size)
    if signature != _SIGNATURE or header_size != _HEADER_SIZE or entry_size != _ENTRY.size:
        raise ValueError("not a partition table")
    entries = data[_HEADER.size + _COUNT.size :]
    if count > MAX_PARTITIONS or len(entries) != count * _ENTRY.size:
        raise ValueError("partition table of a wrong length")
    partitions: list[Json] = []
    for kind, identity, first, last, _, name in _ENTRY.iter_unpack(entries):
        if max(first, last) > _LAST_LBA:
            raise ValueError("partition beyond every disk")
        partitions.append(
            {
                "number": len(partitions) + 1,
                "type": guid.to_text(kind),
                "guid": guid.to_text(identity),
                "first_lba": first,
                "last_lba": last,
                "name": name.decode("utf-16-le").split("\0", 1)[0],
            }
        )
    return {"gpt": {"disk": guid.to_text(disk), "partitions": partitions}}
