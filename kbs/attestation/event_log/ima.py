"""IMA: what Linux measured of files it opened, replayed to PCR 10.

The list grows while a quote is made, so that it may be longer than what the quote covers: entries behind the last one
that the quoted value covers are counted and not shown.

Source: Linux, Documentation/security/IMA-templates.rst; TPM 2.0 Part 1, 17.3 (extend).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kbs.attestation.event_log.algorithms import BY_BANK, SHA1, Algorithm
from kbs.attestation.event_log.ima_records import DIGEST, PATH, Entry, parse
from kbs.attestation.event_log.model import MAX_EVENTS
from kbs.attestation.model import Json
from kbs.errors import EventLogMalformed, EventLogMismatch

IMA_PCR: Final = 10

_VIOLATION: Final = bytes(SHA1.size)


@dataclass(frozen=True, slots=True)
class ReplayedIma:
    """A list whose beginning replays to the quoted register. Only `replay` makes one.

    entries: what the register covers, in order; see `as_claims`. uncovered: entries that it does not.
    violations: files that were written while they were measured.
    """

    entries: list[dict[str, Json]]
    uncovered: int
    violations: int

    def as_claims(self) -> Mapping[str, Json]:
        """`ima_log`: entries {`template`, `violation`: false, `algorithm`, `digest` (hex), `path` or, if it is not
        printable UTF-8, `path_hex`; `signature`, `buffer`, `module_digest`, `module_signature` (hex) where the template
        has them and they are not empty}; a violation is {`template`, `violation`: true, `path_unverified`}, since the
        register does not hold its file. `ima`: {`entries`, `uncovered`, `violations`}: numbers.
        """
        counts = {"entries": len(self.entries), "uncovered": self.uncovered, "violations": self.violations}
        return {"ima_log": self.entries, "ima": counts}


def replay(log: bytes, quoted: bytes, bank: str, *, register: int = IMA_PCR, padded_sha1: bool = False) -> ReplayedIma:
    """Check a measurement list against a PCR.

    Args:
        log: `ascii_runtime_measurements` or `binary_runtime_measurements` (little-endian, with SHA-1 template digests).
        quoted: the PCR's value under a verified quote.
        bank: the PCR's bank.
        register: the PCR that IMA extends; entries for another one count as uncovered.
        padded_sha1: the kernel is older than 5.8, which extends other banks with the SHA-1 digest and zeros: then the
            list is only as trustworthy as SHA-1.

    Raises:
        EventLogMalformed: not such a list, longer than 10 000 entries, or an entry whose digest is not of its data.
        EventLogMismatch: no beginning of the list leads to the PCR's value.
        KeyError: a bank that nobody knows.
    """
    algorithm = BY_BANK[bank]
    if len(quoted) != algorithm.size:
        raise ValueError("register of another size than the algorithm's")  # a bug of the caller
    entries: list[Entry] = []
    others = covered = 0
    value = bytes(algorithm.size)
    for entry in parse(log):
        if len(entries) + others >= MAX_EVENTS:
            raise EventLogMalformed(f"IMA list has more than {MAX_EVENTS} entries")
        if entry.register != register:
            others += 1
            continue
        value = algorithm.hash(value + _extended(entry, algorithm, padded_sha1))
        entries.append(entry)
        if hmac.compare_digest(value, quoted):
            covered = len(entries)
    if not covered:
        raise EventLogMismatch(f"IMA list does not lead to the value of PCR {register}")
    shown = [_claim(entry) for entry in entries[:covered]]
    violations = sum(1 for entry in entries[:covered] if entry.digest == _VIOLATION)
    return ReplayedIma(shown, len(entries) - covered + others, violations)


def _extended(entry: Entry, algorithm: Algorithm, padded_sha1: bool) -> bytes:
    """What the kernel extended for this entry."""
    if entry.digest == _VIOLATION:
        return b"\xff" * algorithm.size
    if not hmac.compare_digest(SHA1.hash(entry.hashed), entry.digest):
        raise EventLogMalformed("IMA list has an entry whose digest is not of its data")
    return entry.digest.ljust(algorithm.size, b"\0") if padded_sha1 else algorithm.hash(entry.hashed)


def _claim(entry: Entry) -> dict[str, Json]:
    if entry.digest == _VIOLATION:  # the register holds that it happened, not to which file
        return {
            "template": entry.template,
            "violation": True,
            "path_unverified": entry.fields[PATH].decode(errors="replace"),
        }
    prefix, separator, digest = entry.fields[DIGEST].partition(b":\0")
    algorithm, value = (prefix, digest) if separator else (b"sha1", entry.fields[DIGEST])
    claim: dict[str, Json] = {
        "template": entry.template,
        "violation": False,
        "algorithm": algorithm.decode("ascii", errors="replace"),
        "digest": value.hex(),
        **_path(entry.fields[PATH]),
    }
    for name, field in entry.fields.items():
        if name not in (DIGEST, PATH) and field:
            claim[name] = field.hex()
    return claim


def _path(raw: bytes) -> dict[str, Json]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"path_hex": raw.hex()}
    return {"path": text} if text.isprintable() else {"path_hex": raw.hex()}
