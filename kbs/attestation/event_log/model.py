"""What an event log is before and after its replay.

An `Event` is what somebody wrote. A `ReplayedLog` exists only for a log whose digests lead to the quoted registers,
and even then vouches for digests alone: what an event's data say is worth as much as `digest_covers` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from kbs.attestation.model import Json

MAX_SIZE: Final = 4 << 20  # bytes of one log
MAX_EVENTS: Final = 10_000


class Event(NamedTuple):
    """One entry, parsed and not yet replayed.

    register: number of the register it was extended into. type: TCG event type. digest: of the bank that is replayed.
    data: event data as logged.
    """

    register: int
    type: int
    digest: bytes
    data: bytes


class RuntimeEvent(NamedTuple):
    """One event of the attestation agent (AAEL), its text recomputed against a digest that a quoted register covers."""

    register: int
    domain: str
    operation: str
    content: Json

    def as_claim(self) -> dict[str, Json]:
        """One entry of `runtime_events`."""
        return {"index": self.register, "domain": self.domain, "operation": self.operation, "content": self.content}


@dataclass(frozen=True, slots=True)
class RegisterLog:
    """What the log says of one quoted register; the replayed value is the quoted one.

    index: as in the log. events: how often it was extended. recomputed: of these, how many digests are hashes of the
        logged data, whole or in part. runtime_events: of these, how many are events of the attestation agent.
    """

    index: int
    events: int
    recomputed: int
    runtime_events: int

    def as_claim(self) -> dict[str, Json]:
        """One entry of `event_log.registers`."""
        return {
            "index": self.index,
            "events": self.events,
            "recomputed": self.recomputed,
            "runtime_events": self.runtime_events,
        }


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """A log that replays to the quoted registers. Only `replay` functions make one.

    claims: `uefi_event_logs`, the entries of quoted registers in their order; `kbs.attestation.event_log.claims`.
    unverified: entries of the same form that no quoted register covers, whatever they say.
    runtime_events: events of the attestation agent, in their order.
    registers: one for each quoted register that is not `unlogged`, ascending.
    unlogged: quoted registers that were extended and of which the log says nothing, ascending.
    secure_boot: UEFI variable SecureBoot as measured before the operating system ran; None: not measured, or not once.
    """

    claims: list[dict[str, Json]]
    unverified: list[dict[str, Json]]
    runtime_events: tuple[RuntimeEvent, ...]
    registers: tuple[RegisterLog, ...]
    unlogged: tuple[int, ...]
    secure_boot: bool | None

    def beside(self, other: ReplayedLog) -> ReplayedLog:
        """Both logs of one quote, this one first. Registers that either explains are explained."""
        found = {register.index: register for register in (*self.registers, *other.registers)}
        return ReplayedLog(
            claims=[*self.claims, *other.claims],
            unverified=[*self.unverified, *other.unverified],
            runtime_events=(*self.runtime_events, *other.runtime_events),
            registers=tuple(found[index] for index in sorted(found)),
            unlogged=tuple(index for index in sorted({*self.unlogged, *other.unlogged}) if index not in found),
            secure_boot=self.secure_boot,
        )

    def as_claims(self) -> Mapping[str, Json]:
        """Members for a claim set. `uefi_event_logs_unverified` is there only when there are such entries."""
        claims: dict[str, Json] = {
            "uefi_event_logs": self.claims,
            "runtime_events": [event.as_claim() for event in self.runtime_events],
            "event_log": {
                "registers": [register.as_claim() for register in self.registers],
                "unlogged": list(self.unlogged),
                "secure_boot": self.secure_boot,
            },
        }
        if self.unverified:
            claims["uefi_event_logs_unverified"] = self.unverified
        return claims
