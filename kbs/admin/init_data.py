"""The broker's register of known init-data documents: whose they are, and where a guest's init data come from.

Each document is kept as its exact text with an owner. All forms that the claim `init_data` takes for the registered
documents are one reference value, `init_data_digests`; values that others put there stay. A document leaves the list
with its entry in the register, and with it every guest that was started with it.

Source: guest-components 4.2, 4.4, 4.7.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from kbs.attestation.init_data import parse_init_data
from kbs.attestation.registered import RegisteredInitData
from kbs.clock import Clock
from kbs.errors import MalformedMessage, NameNotAllowed, ReferenceValuesUnavailable, ResourceNotFound, VersionConflict
from kbs.initdata import annotation
from kbs.initdata.document import Document, claims_of, field_values, parse
from kbs.policy.decisions import KeptDecision
from kbs.storage.model import KeyValueStore, Record
from rvps.client import ReferenceValueProvider
from rvps.compute.init_data import NAME as DIGESTS

_NAMESPACE: Final = "init-data"
_PCR_8: Final = "pcr8"
_PUBLISHED: Final = "init-data-published"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_OWNER: Final = 128  # characters
_MAX_DOCUMENTS: Final = 1000
_TRIES: Final = 32
_NEAREST: Final = 3
_DECISION: Final = re.compile(r"[0-9a-f]{32}")
_VALUE: Final = re.compile(r"(?:[0-9a-f]{2}){32,256}")

Find = Callable[[str], Sequence[Mapping[str, Any]]]
"""Decision id → its audit records, oldest first."""

Kept = Callable[[str], Sequence[KeptDecision]]
"""Decision id → what policies were given."""


@dataclass(frozen=True, slots=True)
class Registered:
    """One entry. version: of the entry, counting up. author: the administrator; owner: whoever answers for it."""

    name: str
    owner: str
    version: int
    author: str
    time: str
    document: Document

    def summary(self) -> dict[str, Any]:
        """What listings show."""
        return {
            "name": self.name,
            "owner": self.owner,
            "version": self.version,
            "author": self.author,
            "time": self.time,
            "algorithm": self.document.algorithm,
            "digest": self.document.digest.hex(),
            "size": len(self.document.raw),
        }

    def whole(self) -> dict[str, Any]:
        """The same with the text and the fields of all TEEs."""
        return {
            **self.summary(),
            "text": self.document.text,
            "fields": field_values(self.document.digest),
            "init_data": list(claims_of(self.document.digest)),
        }


class InitDataRegister:
    """Documents over a `KeyValueStore`, their digests at a provider. Safe from several threads and processes."""

    def __init__(self, store: KeyValueStore, references: ReferenceValueProvider, clock: Clock) -> None:
        self._store = store
        self._references = references
        self._clock = clock
        self._by_pcr_8: tuple[int, Mapping[str, str]] = (-1, {})  # change token of the store, value → name
        self._lock = Lock()  # workers of one process need not make each other begin anew

    def register(
        self, name: str, owner: str, raw: bytes, *, author: str, issuer: str, expected: int | None = None
    ) -> Registered:
        """Keep a document, and let guests that were started with it match. One of that name is replaced.

        expected: version of the entry that must be current; 0: there must be none; None: whatever is there.

        Raises:
            NameNotAllowed: a name or an owner outside its grammar. MalformedMessage: no such document, or too many.
            VersionConflict: lost against somebody else. StorageUnavailable: nothing was stored.
            rvps.errors.RvpsError: the reference values could not be set; the register is as before.
        """
        _check_name(name)
        if not owner or len(owner) > _MAX_OWNER or not owner.isprintable():
            raise NameNotAllowed(f"an owner is a text of 1 to {_MAX_OWNER} printable characters")
        document = parse(raw)
        before = self._store.get(_NAMESPACE, name)
        if before is None and len(self._store.entries(_NAMESPACE)) >= _MAX_DOCUMENTS:
            raise MalformedMessage(f"the register holds {_MAX_DOCUMENTS} documents; remove some first")
        current = 0 if before is None else before.version
        if expected is not None and expected != current:
            raise VersionConflict(f"entry {name} has version {current}")
        meta = {"owner": owner, "author": author, "time": self._clock().isoformat(), **_pcr_8(document)}
        version = self._store.put(_NAMESPACE, name, raw, meta=meta, expected=current)
        try:
            self._publish(issuer)
        except BaseException:
            self._undo(name, version, before)
            raise
        return Registered(name, owner, version, author, meta["time"], document)

    def remove(self, name: str, *, issuer: str, expected: int | None = None) -> Registered:
        """Forget a document; guests that were started with it no longer match.

        Raises: as `register`, and
            ResourceNotFound: there is none of that name.
        """
        found = self.get(name)
        if expected is not None and expected != found.version:
            raise VersionConflict(f"entry {name} has version {found.version}")
        if not self._store.delete(_NAMESPACE, name, expected=found.version):
            raise ResourceNotFound(f"no init data {name} are registered")
        try:
            self._publish(issuer)
        except BaseException:
            meta = {"owner": found.owner, "author": found.author, "time": found.time, **_pcr_8(found.document)}
            with suppress(VersionConflict):  # somebody else has registered one meanwhile
                self._store.put(_NAMESPACE, name, found.document.raw, meta=meta, expected=0)
            raise
        return found

    def get(self, name: str) -> Registered:
        """One entry.

        Raises:
            ResourceNotFound: there is none of that name.
        """
        _check_name(name)
        record = self._store.get(_NAMESPACE, name)
        if record is None:
            raise ResourceNotFound(f"no init data {name} are registered")
        return _opened(record)

    def all(self) -> Sequence[Registered]:
        """Every entry by name."""
        found = (self._store.get(_NAMESPACE, entry.key) for entry in self._store.entries(_NAMESPACE))
        return [_opened(record) for record in found if record is not None]

    def of_pcr_8(self, value: str) -> RegisteredInitData | None:
        """As `kbs.attestation.registered.KnownInitData`; of several with one text the first by name."""
        token = self._store.change_token()
        if self._by_pcr_8[0] != token:
            entries = reversed(self._store.entries(_NAMESPACE))
            self._by_pcr_8 = (token, {each.meta[_PCR_8]: each.key for each in entries if _PCR_8 in each.meta})
        name = self._by_pcr_8[1].get(value)
        record = None if name is None else self._store.get(_NAMESPACE, name)
        if record is None:
            return None
        found = _opened(record)
        if _pcr_8(found.document).get(_PCR_8) != value:  # the index is not sealed, the text is
            return None
        return RegisteredInitData(found.name, found.owner, found.version, parse_init_data(found.document.text))

    def approved(self) -> Sequence[Any]:
        """What the reference value holds now."""
        held = self._references.snapshot(self._clock()).values.get(DIGESTS)
        return held if isinstance(held, list) else ()

    def _publish(self, issuer: str) -> None:
        """Make the reference value what others put there and all claims of the register.

        What the register itself put there is remembered. That record is changed before the value is and again after,
        by compare and set: whoever was not alone begins anew, so that the last one saw everything.
        """
        mine: set[str] = set()  # what earlier rounds may have written over a newer value: not others' either
        with self._lock:
            for _ in range(_TRIES):
                with suppress(VersionConflict):
                    self._publish_alone(issuer, mine)
                    return
        raise ReferenceValuesUnavailable("the register changes all the time; try again")

    def _publish_alone(self, issuer: str, mine: set[str]) -> None:
        record = self._store.get(_PUBLISHED, DIGESTS)
        version, ours = (0, []) if record is None else (record.version, json.loads(record.value))
        wanted = sorted({claim for each in self.all() for claim in claims_of(each.document.digest)})
        mine.update(ours, wanted)
        version = self._remember(sorted(mine), version)
        at, held = self._clock(), self.approved()
        values = [*(each for each in held if not isinstance(each, str) or each not in mine), *wanted]
        if values or held:  # stated again, so that it lives twelve months from now
            payload = base64.b64encode(json.dumps({DIGESTS: values}).encode()).decode("ascii")
            message = {"version": "0.1.0", "type": "sample", "payload": payload}
            self._references.register(message, issuer=issuer, at=at)
        self._remember(wanted, version)

    def _remember(self, claims: Sequence[str], expected: int) -> int:
        return self._store.put(_PUBLISHED, DIGESTS, json.dumps(claims).encode(), meta={}, expected=expected)

    def _undo(self, name: str, version: int, before: Record | None) -> None:
        """As it was, unless somebody else has changed the entry meanwhile."""
        with suppress(VersionConflict):
            if before is None:
                self._store.delete(_NAMESPACE, name, expected=version)
            else:
                self._store.put(_NAMESPACE, name, before.value, meta=before.meta, expected=version)


def origin(asked: str, register: InitDataRegister, find: Find, kept: Kept) -> dict[str, Any]:
    """Where init data come from.

    Args:
        asked: the claim `init_data` in hex, or the id of a decision about a guest.

    Returns:
        `init_data` (hex or None), `approved` (whether it is in `init_data_digests` now), `sent` (whether the guest sent
        the document), `matches`: registered documents that lead to the value, as they are or by a mistake (`how`), and,
        where there is none, `nearest`: those that agree in most entries with what the guest sent, with what differs.

    Raises:
        MalformedMessage: neither. ResourceNotFound: nothing is kept of such a decision.
    """
    known = register.all()
    if _VALUE.fullmatch(asked):
        return _answer(asked, asked, register.approved(), list(_matches(asked, known)), sent=False)
    if not _DECISION.fullmatch(asked):
        raise MalformedMessage("expected the claim init_data in lower-case hex, or the id of a decision")
    claims = _claims_behind(asked, find, kept)
    value, said = claims.get("init_data"), claims.get("init_data_claims")
    value = value if isinstance(value, str) else None
    matches = [] if value is None else list(_matches(value, known))
    nearest = [] if matches or not isinstance(said, dict) else _nearest(said, known)
    return _answer(asked, value, register.approved(), matches, nearest, sent=isinstance(said, dict))


def _answer(
    asked: str,
    value: str | None,
    approved: Sequence[Any],
    matches: Sequence[Mapping[str, Any]],
    nearest: Sequence[Mapping[str, Any]] = (),
    *,
    sent: bool,
) -> dict[str, Any]:
    return {
        "asked": asked,
        "init_data": value,
        "approved": value is not None and (value in approved or _as_sample(value) in approved),
        "sent": sent,
        "matches": list(matches),
        "nearest": list(nearest),
    }


def _as_sample(value: str) -> str | None:
    """The same value in base64, as claims of the software TEE have it."""
    return base64.b64encode(bytes.fromhex(value)).decode("ascii") if _VALUE.fullmatch(value) else None


def _claims_behind(decision: str, find: Find, kept: Kept) -> Mapping[str, Any]:
    """What the evidence policy was given for this decision, or for the attestation that it rests on."""
    asked = [decision, *(str(record["attestation"]) for record in find(decision) if record.get("attestation"))]
    for each in dict.fromkeys(asked):
        for one in kept(each):
            if one.kind == "evidence" and one.part == "cpu0":
                document = json.loads(bytes(one.claims))
                return document if isinstance(document, dict) else {}
    raise ResourceNotFound(f"the claims behind decision {decision} are not kept, or there were none")


def _matches(value: str, known: Sequence[Registered]) -> Iterator[dict[str, Any]]:
    for each in known:
        for how, raw in _variants(each.document):
            digest = each.document.digest if how == "exact" else _digest(raw, each.document.algorithm)
            tees = [tee for tee, field in field_values(digest).items() if value in (field, digest.hex())]
            if tees or value in claims_of(digest):
                yield {"name": each.name, "owner": each.owner, "how": how, "tees": tees}
                break


def _variants(document: Document) -> Iterator[tuple[str, bytes]]:
    """What people digest, or start guests with, by mistake."""
    raw = document.raw
    yield "exact", raw
    yield "one line feed more at the end", raw + b"\n"
    if raw.endswith(b"\n"):
        yield "without the line feed at the end", raw[:-1]
    yield "with CR LF ends of lines", raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "digest of the gzip data, not of the text", annotation.compress(raw)
    yield "digest of the annotation, not of the text", annotation.encode(raw).encode()


def _digest(raw: bytes, algorithm: str) -> bytes:
    return hashlib.new(algorithm, raw).digest() if algorithm != "sm3" else b""


def _nearest(said: Mapping[str, Any], known: Sequence[Registered]) -> list[dict[str, Any]]:
    """By how many entries agree with what the guest sent."""
    found = []
    for each in known:
        own = each.document.claims
        names = sorted({*said, *own})
        same = [name for name in names if name in said and name in own and said[name] == own[name]]
        differs = [name for name in names if name not in same]
        if same:
            found.append({"name": each.name, "owner": each.owner, "same": same, "differs": differs})
    return sorted(found, key=lambda each: (-len(each["same"]), len(each["differs"]), each["name"]))[:_NEAREST]


def _pcr_8(document: Document) -> dict[str, str]:
    """How an entry is found by PCR 8; nothing for digests that no PCR takes."""
    value = field_values(document.digest)["tpm"]
    return {} if value is None else {_PCR_8: value}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise NameNotAllowed("a name is 1 to 128 of A-Z a-z 0-9 . _ - and begins with a letter or digit")


def _opened(record: Record) -> Registered:
    meta = record.meta
    return Registered(
        record.key,
        meta.get("owner", ""),
        record.version,
        meta.get("author", ""),
        meta.get("time", ""),
        parse(record.value),
    )
