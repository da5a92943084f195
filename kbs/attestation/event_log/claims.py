"""Replayed events as claims: one entry of `uefi_event_logs` for each.

Members of the reference implementation (verifiers 3.5): `details`, `digest_matches_event`, `digests`, `event` (base64),
`index`, `type_name`. Ours beside them:

- `digest_covers`: what the digest is the hash of, recomputed here: `event` (all data), `variable_data` (the value of a
  UEFI variable, not its name), `text` (what stands in `details.string` behind its first space), `tagged_data` (what is
  behind tag and size), or `unknown`: then `event` and `details` are what somebody says about the digest.
- `parsed`: whether `details` is everything that the form of the type says. False for a type that nobody decodes, that
  is not documented, or whose data are not of its form, and where the profile demands that the digest is the hash of the
  data and it is not (`details` is empty then).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final

from kbs.attestation.event_log import details as decoders
from kbs.attestation.event_log.algorithms import Algorithm
from kbs.attestation.event_log.event_types import (
    EV_EFI_VARIABLE_BOOT,
    EV_EVENT_TAG,
    EV_IPL,
    EVENT_TYPES,
    unknown_type,
)
from kbs.attestation.event_log.model import Event
from kbs.attestation.model import Json

UNKNOWN: Final = "unknown"
WHOLE: Final = "event"

_HASHED_IN_PART: Final = frozenset({EV_EFI_VARIABLE_BOOT, EV_IPL})  # tried before all of the data: it mostly fits
_TAGGED_HEAD: Final = 8  # bytes of tag and size
_LABELLED: Final = re.compile(rb"[a-z_]{1,32}(:?) ([^\0]*)")


def entry(event: Event, algorithm: Algorithm) -> dict[str, Json]:
    """One event as a claim; `digests` holds the digest of the replayed algorithm and no other: none else is quoted."""
    register, number, digest, data = event
    name, decode, hashes_data = EVENT_TYPES.get(number) or unknown_type(number)
    details: dict[str, Json] = {}
    parsed = False
    in_part = number in _HASHED_IN_PART
    covers = UNKNOWN
    if not in_part:
        covers = WHOLE if algorithm.hash(data) == digest else _covered_tagged(number, data, digest, algorithm)
    if decode is not None and (covers is WHOLE or not hashes_data):
        try:
            details = decode(data)
            parsed = True
        except ValueError:
            pass  # not of the form: the event stays, and says that it is not parsed
    if in_part:
        covers = (parsed and _covered_part(number, data, digest, algorithm)) or (
            WHOLE if algorithm.hash(data) == digest else UNKNOWN
        )
    elif covers is not WHOLE and "data" in details:  # the agent hashes all of its event
        details, parsed = {}, False
    return {
        "details": details,
        "digest_covers": covers,
        "digest_matches_event": covers is WHOLE,
        "digests": [{"alg": algorithm.name, "digest": digest.hex()}],
        "event": b2a_base64(data, newline=False).decode(),
        "index": register,
        "parsed": parsed,
        "type_name": name,
    }


def unverified_entry(event: Event, algorithm: Algorithm) -> dict[str, Json]:
    """An event that no quoted register covers: what it says, and nothing that was looked into."""
    return {
        "digests": [{"alg": algorithm.name, "digest": event.digest.hex()}],
        "event": b2a_base64(event.data, newline=False).decode(),
        "index": event.register,
        "type_name": (EVENT_TYPES.get(event.type) or unknown_type(event.type)).name,
    }


def _covered_tagged(number: int, data: bytes, digest: bytes, algorithm: Algorithm) -> str:
    """What a digest covers that is not that of all data: a tagged event's payload, or nobody knows what."""
    if number == EV_EVENT_TAG and algorithm.hash(data[_TAGGED_HEAD:]) == digest:
        return "tagged_data"
    return UNKNOWN


def _covered_part(number: int, data: bytes, digest: bytes, algorithm: Algorithm) -> str | None:
    """What firmware and boot loaders mostly hash in place of all event data; None: something else."""
    if number == EV_EFI_VARIABLE_BOOT:
        return "variable_data" if algorithm.hash(decoders.variable_bytes(data)) == digest else None
    labelled = _LABELLED.match(data)
    if labelled is None:
        return None
    # GRUB logs `grub_cmd: text` and hashes the text (grub-core/commands/tpm.c); the boot loaders of Red Hat and Anolis
    # log `grub_cmd text` and hash the text, mostly with its NUL, whatever byte may follow.
    colon, text = labelled.groups()
    found = (not colon and algorithm.hash(text + b"\0") == digest) or algorithm.hash(text) == digest
    return "text" if found else None
