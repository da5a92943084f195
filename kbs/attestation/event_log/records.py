"""Container formats: SHA-1 logs (TCG_PCR_EVENT) and crypto-agile logs (TCG_PCR_EVENT2, also CCEL).

Little-endian. Everything is read strictly: lengths against what is left, one digest for each announced algorithm at
most, nothing but padding behind the end. Cost is linear in the size of the log: one `unpack` for an ordinary entry.

Source: TCG PC Client Platform Firmware Profile 1.06, 10.2 (structures) and 10.4.5.1 (Specification ID event);
Intel GHCI 1.5, 4.3 (CCEL).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kbs.attestation.event_log.algorithms import BY_ID, Algorithm
from kbs.attestation.event_log.model import MAX_EVENTS, MAX_SIZE, Event
from kbs.errors import EventLogMalformed

EV_NO_ACTION: Final = 0x00000003
SPEC_ID: Final = b"Spec ID Event03\0"

_OLD_ENTRY: Final = struct.Struct("<II20sI")  # index, type, SHA-1 digest, size of the data behind it
_SPEC_ID_HEAD: Final = struct.Struct("<16sIBBBBI")  # signature, class, minor, major, errata, UINTN, algorithms
_SPEC_ID_ALGORITHM: Final = struct.Struct("<HH")  # algorithm, digest size
_ENTRY_HEAD: Final = struct.Struct("<III")  # index, type, digests
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_END_SIZE: Final = 8
_ENDS: Final = (b"\0" * _END_SIZE, b"\xff" * _END_SIZE)
_END_WORDS: Final = (0, 0xFFFFFFFF)
_NO_FIELDS: Final = (0, 0, 0, 0)  # of an entry nearer to the end than an ordinary one could be
_MAX_ALGORITHMS: Final = 8
_MAX_DIGEST: Final = 128  # bytes, of an algorithm that we do not know
_MAJOR: Final = 2


class Table(NamedTuple):
    """Algorithms that a Specification ID event announces, with their digest sizes, in its order."""

    sizes: dict[int, int]
    first_entry: int  # offset of the entry behind the Specification ID event


def is_crypto_agile(log: bytes) -> bool:
    """Whether the log begins with a Specification ID event of the crypto-agile format. Reads nothing else."""
    return log[_OLD_ENTRY.size : _OLD_ENTRY.size + len(SPEC_ID)] == SPEC_ID


def parse_crypto_agile(log: bytes, algorithm: Algorithm) -> list[Event]:
    """Entries behind the Specification ID event, each with its digest of `algorithm`.

    Raises:
        EventLogMalformed: too large, cut, inconsistent, without a digest of `algorithm` somewhere, EV_NO_ACTION with
            a digest, or anything but padding behind the end.
    """
    table = parse_table(log)
    if table.sizes.get(algorithm.id) != algorithm.size:
        raise EventLogMalformed("event log does not announce the algorithm of the quoted registers")
    return parse_entries(log, table, algorithm)


def parse_entries(log: bytes, table: Table, algorithm: Algorithm) -> list[Event]:
    """TCG_PCR_EVENT2 entries from `table.first_entry` on.

    Raises:
        EventLogMalformed: as `parse_crypto_agile`.
    """
    ids = tuple(table.sizes)
    ordinary = struct.Struct("<III" + "".join(f"H{size}s" for size in table.sizes.values()) + "I")
    wanted, count, length = 4 + 2 * ids.index(algorithm.id), len(ids), ordinary.size
    unpack, make = ordinary.unpack_from, tuple.__new__  # a named tuple's own `__new__` takes twice as long
    events: list[Event] = []
    add = events.append
    offset, end = table.first_entry, len(log)
    while offset < end:
        fields = unpack(log, offset) if end - offset >= length else _NO_FIELDS
        register, kind = fields[0], fields[1]
        if register in _END_WORDS and log[offset : offset + _END_SIZE] in _ENDS:
            _only_padding(log, offset)
            break
        if fields[2] == count and fields[3:-1:2] == ids:
            digest, size = fields[wanted], fields[-1]
            offset += length
            empty = kind != EV_NO_ACTION or not any(map(any, fields[4:-1:2]))
        else:
            register, kind, digest, empty, size, offset = _unusual(log, offset, table.sizes, algorithm.id)
        behind = offset + size
        if behind > end:
            raise EventLogMalformed("event log ends inside an entry")
        if not empty:
            # Measured and yet not extended: nothing that a register says could tell whether it happened.
            raise EventLogMalformed("event log has an EV_NO_ACTION entry with a digest")
        add(make(Event, (register, kind, digest, log[offset:behind])))
        offset = behind
        if len(events) > MAX_EVENTS:
            raise EventLogMalformed(f"event log has more than {MAX_EVENTS} entries")
    return events


def parse_sha1(log: bytes) -> list[Event]:
    """Entries of a log of the old format, SHA-1 only; also its first one, whatever that is.

    Raises:
        EventLogMalformed: too large, cut, EV_NO_ACTION with a digest, or anything but padding behind the end.
    """
    check_size(log)
    events: list[Event] = []
    offset, end = 0, len(log)
    while offset < end:
        if log[offset : offset + _END_SIZE] in _ENDS:
            _only_padding(log, offset)
            break
        if end - offset < _OLD_ENTRY.size:
            raise EventLogMalformed("event log ends inside an entry")
        index, kind, digest, size = _OLD_ENTRY.unpack_from(log, offset)
        offset += _OLD_ENTRY.size
        if size > end - offset:
            raise EventLogMalformed("event log ends inside an entry")
        if kind == EV_NO_ACTION and any(digest):
            raise EventLogMalformed("event log has an EV_NO_ACTION entry with a digest")
        events.append(Event(index, kind, digest, log[offset : offset + size]))
        offset += size
        if len(events) > MAX_EVENTS:
            raise EventLogMalformed(f"event log has more than {MAX_EVENTS} entries")
    return events


def check_size(log: bytes) -> None:
    """Raises EventLogMalformed for an empty log or one of more than `MAX_SIZE` bytes."""
    if not log:
        raise EventLogMalformed("event log is empty")
    if len(log) > MAX_SIZE:
        raise EventLogMalformed(f"event log is longer than {MAX_SIZE} bytes")


def parse_table(log: bytes) -> Table:
    check_size(log)
    if len(log) < _OLD_ENTRY.size or not is_crypto_agile(log):
        raise EventLogMalformed("event log does not begin with a Specification ID event")
    _, kind, digest, size = _OLD_ENTRY.unpack_from(log)
    if kind != EV_NO_ACTION or any(digest):
        raise EventLogMalformed("event log does not begin with a Specification ID event")
    if not _SPEC_ID_HEAD.size < size <= len(log) - _OLD_ENTRY.size:
        raise EventLogMalformed("event log ends inside its Specification ID event")
    data = log[_OLD_ENTRY.size : _OLD_ENTRY.size + size]
    _, _, _, major, _, _, count = _SPEC_ID_HEAD.unpack_from(data)
    vendor = _SPEC_ID_HEAD.size + count * _SPEC_ID_ALGORITHM.size
    if major != _MAJOR:
        raise EventLogMalformed("event log of an unknown version")
    if not 0 < count <= _MAX_ALGORITHMS or vendor >= size or vendor + 1 + data[vendor] != size:
        raise EventLogMalformed("Specification ID event is inconsistent")
    pairs = list(_SPEC_ID_ALGORITHM.iter_unpack(data[_SPEC_ID_HEAD.size : vendor]))
    sizes = dict(pairs)
    if len(sizes) != len(pairs):
        raise EventLogMalformed("Specification ID event announces an algorithm twice")
    for number, octets in pairs:
        known = BY_ID.get(number)
        if not 0 < octets <= _MAX_DIGEST or (known is not None and known.size != octets):
            raise EventLogMalformed("Specification ID event announces a wrong digest size")
    return Table(sizes, _OLD_ENTRY.size + size)


def _unusual(log: bytes, offset: int, sizes: dict[int, int], wanted: int) -> tuple[int, int, bytes, bool, int, int]:
    """An entry whose digests are fewer than announced or in another order; offset behind its size."""
    end = len(log)
    if end - offset < _ENTRY_HEAD.size:
        raise EventLogMalformed("event log ends inside an entry")
    index, kind, count = _ENTRY_HEAD.unpack_from(log, offset)
    offset += _ENTRY_HEAD.size
    if count > len(sizes):
        raise EventLogMalformed("event log has an entry with more digests than announced")
    found: dict[int, bytes] = {}
    for _ in range(count):
        if end - offset < _U16.size:
            raise EventLogMalformed("event log ends inside an entry")
        (number,) = _U16.unpack_from(log, offset)
        size = sizes.get(number)
        if size is None or number in found:
            raise EventLogMalformed("event log has an entry with a digest not announced, or twice")
        offset += _U16.size
        found[number] = log[offset : offset + size]
        offset += size
    if end - offset < _U32.size:
        raise EventLogMalformed("event log ends inside an entry")
    digest = found.get(wanted)
    if digest is None:
        raise EventLogMalformed("event log has an entry without a digest of the quoted registers' algorithm")
    empty = kind != EV_NO_ACTION or not any(map(any, found.values()))
    return index, kind, digest, empty, _U32.unpack_from(log, offset)[0], offset + _U32.size


def _only_padding(log: bytes, offset: int) -> None:
    rest = log[offset:]
    if rest.count(rest[:1]) != len(rest):
        # Upstream stops reading here; nobody has a reason to put something where no reader looks.
        raise EventLogMalformed("event log has something behind its end")
