"""A confidential machine's event log (CCEL): its entries, and the registers they lead to.

A log is lent evidence: whoever made it could write anything. It is read for the events that cannot be computed, and to
check that computed events lead to what a real machine had.

Source: TCG PC Client Platform Firmware Profile 1.06, 10.2, 10.4.5.1; UEFI 2.10, 38.4.1; verifiers 3.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rvps.errors import ArtifactUnusable

MAX_LOG: Final = 4 << 20  # bytes
MAX_EVENTS: Final = 10_000
DIGEST_SIZE: Final = 48  # SHA-384
REGISTERS: Final = (1, 2, 3, 4)  # as logs number them; RTMR0 is 1

_NO_ACTION: Final = 3
_OLD_ENTRY: Final = struct.Struct("<II20sI")
_SPEC_ID: Final = b"Spec ID Event03\0"
_ALGORITHMS_AT: Final = 24  # in the Specification ID event
_ALGORITHM: Final = struct.Struct("<HH")
_ENTRY: Final = struct.Struct("<III")
_SHA384: Final = 0x000C
_END: Final = 8  # bytes of 00 or FF
_MAX_ALGORITHMS: Final = 8


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `digest`: SHA-384, what was extended; `data`: what the firmware says it was, unproven."""

    register: int
    kind: int
    digest: bytes
    data: bytes


def read(log: bytes) -> list[Event]:
    """The measured events of a log, in order (EV_NO_ACTION events are no measurements).

    Raises:
        ArtifactUnusable: larger than 4 MiB or 10 000 events, cut, without SHA-384 digests, with events of registers
            that a TD has not, or with anything but padding behind its end.
    """
    if len(log) > MAX_LOG:
        raise ArtifactUnusable(f"the event log has more than {MAX_LOG >> 20} MiB")
    try:
        events = list(_entries(log))
    except struct.error as err:
        raise ArtifactUnusable("the event log is cut") from err
    if not events:
        raise ArtifactUnusable("the event log has no measured event")
    return events


def replay(events: Iterable[Event]) -> dict[int, bytes]:
    """Registers after these events; a register without events is 48 zero bytes."""
    registers = dict.fromkeys(REGISTERS, bytes(DIGEST_SIZE))
    for event in events:
        registers[event.register] = hashlib.sha384(registers[event.register] + event.digest).digest()
    return registers


def _entries(log: bytes) -> Iterator[Event]:
    sizes, offset = _header(log)
    count = 0
    while offset < len(log):
        if log[offset : offset + _END] in (bytes(_END), b"\xff" * _END):
            _check_padding(log, offset)
            return
        count += 1
        if count > MAX_EVENTS:
            raise ArtifactUnusable(f"the event log has more than {MAX_EVENTS} events")
        register, kind, digests = _ENTRY.unpack_from(log, offset)
        offset += _ENTRY.size
        digest, offset = _digest(log, offset, digests, sizes)
        (size,) = struct.unpack_from("<I", log, offset)
        offset += 4
        if size > len(log) - offset:
            raise ArtifactUnusable("the event log is cut within an event")
        if kind != _NO_ACTION:
            if register not in REGISTERS:
                raise ArtifactUnusable("the event log has an event of a register that a TD has not")
            yield Event(register, kind, digest, log[offset : offset + size])
        offset += size


def _header(log: bytes) -> tuple[dict[int, int], int]:
    """Digest sizes by algorithm, and the offset of the first entry behind the Specification ID event."""
    _, kind, _, size = _OLD_ENTRY.unpack_from(log)
    body = log[_OLD_ENTRY.size : _OLD_ENTRY.size + size]
    if kind != _NO_ACTION or not body.startswith(_SPEC_ID) or len(body) != size:
        raise ArtifactUnusable("no event log: it does not begin with a Specification ID event")
    (count,) = struct.unpack_from("<I", body, _ALGORITHMS_AT)
    if not 0 < count <= _MAX_ALGORITHMS:
        raise ArtifactUnusable("the event log announces no algorithm, or too many")
    start = _ALGORITHMS_AT + 4
    sizes = dict(_ALGORITHM.unpack_from(body, start + index * _ALGORITHM.size) for index in range(count))
    if sizes.get(_SHA384) != DIGEST_SIZE:
        raise ArtifactUnusable("the event log has no SHA-384 digests: not the log of a TD")
    return sizes, _OLD_ENTRY.size + size


def _digest(log: bytes, offset: int, count: int, sizes: dict[int, int]) -> tuple[bytes, int]:
    """The SHA-384 digest among those of an entry, and the offset behind them."""
    if count > len(sizes):
        raise ArtifactUnusable("an event of the log has more digests than the log announces")
    found: dict[int, bytes] = {}
    for _ in range(count):
        (algorithm,) = struct.unpack_from("<H", log, offset)
        size = sizes.get(algorithm)
        if size is None or algorithm in found or offset + 2 + size > len(log):
            raise ArtifactUnusable("an event of the log has a digest twice, of an unannounced algorithm, or cut")
        found[algorithm] = log[offset + 2 : offset + 2 + size]
        offset += 2 + size
    if _SHA384 not in found:
        raise ArtifactUnusable("an event of the log has no SHA-384 digest")
    return found[_SHA384], offset


def _check_padding(log: bytes, offset: int) -> None:
    rest = log[offset + _END :]
    if rest.strip(b"\xff") and rest.strip(b"\0"):
        raise ArtifactUnusable("the event log has something behind its end")
