"""CoRIM: concise reference integrity manifests, unsigned, read as far as they state reference values.

Only reference triples of CoMIDs are read. Endorsed values, identity and attestation keys, conditional triples, CoSWIDs
and CoTLs say nothing that a reference value could carry.

Source: draft-ietf-rats-corim, by rvps 12.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import cbor2

from rvps.errors import StatementUnacceptable
from rvps.manifests.cbor import Cbor, decode

MAX_MANIFEST: Final = 1 << 20  # octets; a vendor's manifest has a few KiB
MAX_MEASUREMENTS: Final = 10_000

TAG_EPOCH: Final = 1
TAG_URI: Final = 32
TAG_UUID: Final = 37
TAG_OID: Final = 111
TAG_CORIM: Final = 501
TAG_COMID: Final = 506
TAG_UEID: Final = 550
TAG_SVN: Final = 552
TAG_MIN_SVN: Final = 553
TAG_BYTES: Final = 560
WRAPPERS: Final = (500, 502)  # of older drafts, around anything

TAGS: Final = frozenset(
    {TAG_EPOCH, TAG_URI, TAG_UUID, TAG_OID, TAG_CORIM, *WRAPPERS, *range(505, 509), *range(550, 565)}
)
"""All that a manifest may hold."""

_HASHES: Final[Mapping[int | str, str]] = {1: "sha-256", 7: "sha-384", 8: "sha-512"}
_ID, _TAGS, _VALIDITY = 0, 1, 4  # of a CoRIM
_IDENTITY, _TRIPLES = 1, 4  # of a CoMID
_REFERENCE: Final = 0


@dataclass(frozen=True, slots=True)
class Digest:
    """algorithm: its name in the IANA registry of named information hashes, or its number there as text."""

    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Environment:
    """What was measured. class_id, instance and group are as decoded: a tagged identifier, or None."""

    class_id: Cbor = None
    vendor: str | None = None
    model: str | None = None
    layer: int | None = None
    index: int | None = None
    instance: Cbor = None
    group: Cbor = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement map of a reference triple.

    key: measurement key as decoded: text, unsigned integer, tagged UUID or OID, or None.
    raw: octets of a raw value tagged as bytes; other kinds of raw values are left out.
    registers: id (text) to digests, for integrity registers such as PCRs and RTMRs.
    svn, min_svn: exactly this security version; this one or a higher one.
    is_conditional: it holds only for evidence that certain keys signed (authorized-by).
    """

    environment: Environment
    key: Cbor
    name: str | None
    serial: str | None
    digests: tuple[Digest, ...]
    raw: bytes | None
    registers: Mapping[str, tuple[Digest, ...]]
    svn: int | None
    min_svn: int | None
    is_conditional: bool


@dataclass(frozen=True, slots=True)
class Comid:
    """One module: its identity, the version of that, and what it states. id: text, UUIDs in their usual form."""

    id: str
    version: int
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One CoRIM. valid_from, valid_until: of its rim-validity, in whole seconds."""

    id: str
    comids: tuple[Comid, ...] = field(repr=False)
    valid_from: datetime | None
    valid_until: datetime | None


def unwrap(item: Cbor) -> Cbor:
    """Without the tags that older drafts put around everything."""
    while isinstance(item, cbor2.CBORTag) and item.tag in WRAPPERS:
        item = item.value
    return item


def read(data: bytes) -> Manifest:
    """Read one unsigned CoRIM (tag 501, in wrapper tags or not).

    Raises:
        StatementUnacceptable: larger than `MAX_MANIFEST`, CBOR that is not read here, or a part of the wrong kind.
    """
    item = unwrap(decode(data, what="CoRIM", tags=TAGS, max_size=MAX_MANIFEST))
    if not isinstance(item, cbor2.CBORTag) or item.tag != TAG_CORIM or not isinstance(item.value, Mapping):
        raise StatementUnacceptable("CoRIM: not an unsigned manifest (a map under tag 501)")
    corim = item.value
    tags = _array(corim.get(_TAGS), "`tags`")
    comids = tuple(comid for comid in map(_comid, tags) if comid is not None)
    if sum(len(comid.measurements) for comid in comids) > MAX_MEASUREMENTS:
        raise StatementUnacceptable(f"CoRIM: more than {MAX_MEASUREMENTS} measurements")
    valid_from, valid_until = validity(corim[_VALIDITY], "rim-validity") if _VALIDITY in corim else (None, None)
    return Manifest(_identity(corim.get(_ID), "its id"), comids, valid_from, valid_until)


def validity(item: Cbor, what: str) -> tuple[datetime | None, datetime]:
    """A validity map: from (0, may be missing) and until (1), both inclusive, each seconds since 1970 under tag 1.

    Raises:
        StatementUnacceptable: not such a map, or an end before its start.
    """
    if not isinstance(item, Mapping) or 1 not in item:
        raise StatementUnacceptable(f"CoRIM: {what} is not a map with an end (1)")
    start, end = (_time(item[0], what) if 0 in item else None), _time(item[1], what)
    if start is not None and end < start:
        raise StatementUnacceptable(f"CoRIM: {what} ends before it begins")
    return start, end


def _time(item: Cbor, what: str) -> datetime:
    seconds = item.value if isinstance(item, cbor2.CBORTag) and item.tag == TAG_EPOCH else None
    if type(seconds) is not int or not 0 <= seconds < 253_402_300_800:  # the year 10000
        raise StatementUnacceptable(f"CoRIM: {what} holds no time in whole seconds (tag 1)")
    return datetime.fromtimestamp(seconds, UTC)


def _comid(item: Cbor) -> Comid | None:
    """Upstream takes any tagged byte string that reads as a CoMID; under another tag than 506 one that does not is
    something else."""
    if not isinstance(item, cbor2.CBORTag):
        raise StatementUnacceptable("CoRIM: an element of `tags` is not tagged")
    if not isinstance(item.value, bytes):
        raise StatementUnacceptable("CoRIM: an element of `tags` is not a tagged byte string")
    is_named = item.tag == TAG_COMID
    try:
        comid = decode(item.value, what="CoMID", tags=TAGS, max_size=MAX_MANIFEST)
        if not isinstance(comid, Mapping) or not isinstance(comid.get(_TRIPLES), Mapping):
            raise StatementUnacceptable("CoRIM: a CoMID is not a map with triples")
        identity = _map(comid.get(_IDENTITY), "tag-identity")
        triples = _array(comid[_TRIPLES].get(_REFERENCE, ()), "reference triples")
        return Comid(
            _identity(identity.get(0), "the id of a tag"),
            _uint(identity.get(1, 0), "the version of a tag"),
            tuple(measurement for triple in triples for measurement in _triple(triple)),
        )
    except StatementUnacceptable:
        if is_named:
            raise
        return None


def _triple(item: Cbor) -> list[Measurement]:
    triple = _array(item, "a reference triple")
    if len(triple) != 2:
        raise StatementUnacceptable("CoRIM: a reference triple is not an environment with its measurements")
    environment = _environment(_map(triple[0], "an environment"))
    return [_measurement(environment, _map(each, "a measurement")) for each in _array(triple[1], "measurements")]


def _environment(item: Mapping[Any, Cbor]) -> Environment:
    kind = _map(item.get(0, {}), "the class of an environment")
    return Environment(
        class_id=kind.get(0),
        vendor=_optional_text(kind.get(1), "a vendor"),
        model=_optional_text(kind.get(2), "a model"),
        layer=None if 3 not in kind else _uint(kind[3], "a layer"),
        index=None if 4 not in kind else _uint(kind[4], "an index"),
        instance=item.get(1),
        group=item.get(2),
    )


def _measurement(environment: Environment, item: Mapping[Any, Cbor]) -> Measurement:
    values = _map(item.get(1), "the values of a measurement")
    svn, min_svn = _svn(values.get(1))
    registers = _map(values.get(14, {}), "integrity registers")
    return Measurement(
        environment=environment,
        key=item.get(0),
        name=_optional_text(values.get(11), "the name of a measurement"),
        serial=_optional_text(values.get(8), "a serial number"),
        digests=_digests(values.get(2, ())),
        raw=_raw(values.get(4)),
        registers={str(register): _digests(digests) for register, digests in registers.items()},
        svn=svn,
        min_svn=min_svn,
        is_conditional=2 in item,
    )


def _svn(item: Cbor) -> tuple[int | None, int | None]:
    """Exactly this security version, or at least this one; plain numbers are exact."""
    if item is None:
        return None, None
    if not isinstance(item, cbor2.CBORTag):
        return _uint(item, "an SVN"), None
    if item.tag not in (TAG_SVN, TAG_MIN_SVN):
        raise StatementUnacceptable("CoRIM: an SVN has a tag that is not one of 552 and 553")
    number = _uint(item.value, "an SVN")
    return (number, None) if item.tag == TAG_SVN else (None, number)


def _raw(item: Cbor) -> bytes | None:
    if not isinstance(item, cbor2.CBORTag) or item.tag != TAG_BYTES:
        return None
    if not isinstance(item.value, bytes):
        raise StatementUnacceptable("CoRIM: a raw value under tag 560 is not a byte string")
    return item.value


def _digests(item: Cbor) -> tuple[Digest, ...]:
    found = []
    for each in _array(item, "digests"):
        pair = _array(each, "a digest")
        if len(pair) != 2 or type(pair[0]) not in (int, str) or not isinstance(pair[1], bytes):
            raise StatementUnacceptable("CoRIM: a digest is not an algorithm with a byte string")
        found.append(Digest(_HASHES.get(pair[0], str(pair[0])), pair[1]))
    return tuple(found)


def uuid_text(value: object) -> str | None:
    """A UUID of 16 octets in its usual form; None for anything else."""
    return str(UUID(bytes=value)) if isinstance(value, bytes) and len(value) == 16 else None


def _identity(item: Cbor, what: str) -> str:
    value = item.value if isinstance(item, cbor2.CBORTag) and item.tag == TAG_UUID else item
    found = value if isinstance(value, str) else uuid_text(value)
    if not found:
        raise StatementUnacceptable(f"CoRIM: {what} is neither text nor a UUID")
    return found


def _array(item: Cbor, what: str) -> Sequence[Cbor]:
    if not isinstance(item, list | tuple):
        raise StatementUnacceptable(f"CoRIM: {what} is not an array")
    return item


def _map(item: Cbor, what: str) -> Mapping[Any, Cbor]:
    if not isinstance(item, Mapping):
        raise StatementUnacceptable(f"CoRIM: {what} is not a map")
    return item


def _uint(item: Cbor, what: str) -> int:
    if type(item) is not int or item < 0:
        raise StatementUnacceptable(f"CoRIM: {what} is not an unsigned integer")
    return item


def _optional_text(item: Cbor, what: str) -> str | None:
    if item is not None and not isinstance(item, str):
        raise StatementUnacceptable(f"CoRIM: {what} is not text")
    return item
