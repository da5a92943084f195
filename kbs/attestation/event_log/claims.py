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
from base64 import b64encode
from collections.abc import Iterator
from typing import Final

from kbs.attestation.event_log import details as decoders
from kbs.attestation.event_log.algorithms import Algorithm
from kbs.attestation.event_log.event_types import (
    EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_BOOT,
    EV_EVENT_TAG,
    EV_IPL,
    event_type,
)
from kbs.attestation.event_log.model import Event
from kbs.attestation.model import Json

UNKNOWN: Final = "unknown"
WHOLE: Final = "event"

_PARTS_OF: Final = frozenset({EV_EFI_VARIABLE_BOOT, EV_EFI_VARIABLE_AUTHORITY, EV_EVENT_TAG, EV_IPL})
_TAGGED_HEAD: Final = 8  # bytes of tag and size
_LABELLED: Final = re.compile(rb"[a-z_]{1,32}:? ([^\0]*)")


def entry(event: Event, algorithm: Algorithm) -> dict[str, Json]:
    """One event as a claim; `digests` holds the digest of the replayed algorithm and no other: none else is quoted."""
    index, number, digest, data = event
    kind = event_type(number)
    details: dict[str, Json] = {}
    parsed = False
    covers = WHOLE if algorithm.hash(data) == digest else UNKNOWN
    if kind.decode is not None and (covers is WHOLE or not kind.hashes_data):
        try:
            details = kind.decode(data)
            parsed = True
        except ValueError:
            pass  # not of the form: the event stays, and says that it is not parsed
    if covers is UNKNOWN and "data" in details:  # the agent hashes all of its event
        details, parsed = {}, False
    if covers is UNKNOWN and parsed and number in _PARTS_OF:
        covers = next((name for name, part in _parts(number, data) if algorithm.hash(part) == digest), UNKNOWN)
    return {
        "details": details,
        "digest_covers": covers,
        "digest_matches_event": covers is WHOLE,
        "digests": [{"alg": algorithm.name, "digest": digest.hex()}],
        "event": b64encode(data).decode(),
        "index": index,
        "parsed": parsed,
        "type_name": kind.name,
    }


def _parts(number: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What firmware and boot loaders hash in place of all event data, with the name of the part."""
    if number == EV_EVENT_TAG:
        yield "tagged_data", data[_TAGGED_HEAD:]
    elif number == EV_IPL:
        # GRUB logs `grub_cmd: text` and hashes the text (grub-core/commands/efi/tpm.c); the boot loaders of Red Hat and
        # of Anolis log `grub_cmd text` and hash the text with its NUL, whatever byte may follow.
        labelled = _LABELLED.match(data)
        if labelled:
            yield "text", labelled[1]
            yield "text", labelled[1] + b"\0"
    else:
        yield "variable_data", decoders.variable_bytes(data)
