"""Measurement registers: values before the first event, and the chain of events from there.

Source: TCG PC Client Platform TPM Profile 1.06, 4.6.2 (PCR values at reset); TPM 2.0 Part 1, 17.3 (extend).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from kbs.attestation.event_log.algorithms import Algorithm

PCR_NAMES: Final = {index: f"PCR {index}" for index in range(24)}

Starts = Mapping[int, tuple[bytes, ...]]
"""Values that a register may have before its first event; zero where it is not named."""

_DYNAMIC_PCRS: Final = range(17, 23)


def starts_of_dynamic_pcrs(algorithm: Algorithm) -> dict[int, tuple[bytes, ...]]:
    """PCRs 17 to 22: zero after a dynamic launch (and on virtual TPMs that reset them), all ones without one."""
    return dict.fromkeys(_DYNAMIC_PCRS, (bytes(algorithm.size), b"\xff" * algorithm.size))


def starts_of(register: int, starts: Starts, algorithm: Algorithm) -> tuple[bytes, ...]:
    """What this register may start at."""
    return starts.get(register) or (bytes(algorithm.size),)


def leads_to(start: bytes, digests: Iterable[bytes], value: bytes, algorithm: Algorithm) -> bool:
    """Whether extending `start` with the digests, in their order, gives `value`."""
    extend = algorithm.hash
    for digest in digests:
        start = extend(start + digest)
    return hmac.compare_digest(start, value)
