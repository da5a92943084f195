"""TCB levels: what Intel thinks of an SVN, and which level a platform, a TDX module or a quoting enclave is at.

Source: Intel PCS API v4, Get TCB Info and Get Quoting Enclave Identity, "TCB status"; verifiers 2.8 steps 11, 13, 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, Protocol, TypeVar

from kbs.errors import TcbMismatch


class TcbStatus(StrEnum):
    """What Intel thinks of a TCB, as TCB info writes it; the relaunch ones are worked out here."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"


LevelStatus = Literal["UpToDate", "OutOfDate", "Revoked"]
"""What a level of a quoting enclave or TDX module may say."""

OUT_OF_DATE: Final = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})
CONFIGURATION: Final = frozenset(
    {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    }
)
_NOT_GOOD: Final = OUT_OF_DATE | {TcbStatus.REVOKED}


class Level(Protocol):
    """What all levels have."""

    @property
    def status(self) -> TcbStatus: ...
    @property
    def date(self) -> datetime: ...
    @property
    def advisories(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class PlatformLevel:
    """One level of TCB info: SVNs that a platform must have at least."""

    sgx: tuple[int, ...]  # 16
    tdx: tuple[int, ...] | None  # 16; None in TCB info for SGX
    pce_svn: int
    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]

    def rank(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Orders levels so that one which asks for no less than another stands above it."""
        return self.sgx, self.tdx or (), self.pce_svn


@dataclass(frozen=True, slots=True)
class EnclaveLevel:
    """One level of a quoting enclave or TDX module: the ISVSVN that it must have at least."""

    isv_svn: int
    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TdxModule:
    """What a TDX module must be; levels newest first, none for modules of version 0."""

    mr_signer: bytes  # 48
    attributes: bytes  # 8
    attributes_mask: bytes  # 8
    levels: tuple[EnclaveLevel, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """The level that something is at.

    out_of_date_since: for a level that is out of date, the earliest date of those newer levels that are not: from then
        on a better TCB could be had. The level's own date where no newer level is good. None for any other level.
    """

    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]
    out_of_date_since: datetime | None


_L = TypeVar("_L", bound=Level)


def first(levels: Sequence[_L], is_reached: Callable[[_L], bool], subject: str) -> Match:
    """The newest level that is reached. `levels`: newest first.

    Raises:
        TcbMismatch: none is.
    """
    for index, level in enumerate(levels):
        if is_reached(level):
            since = None
            if level.status in OUT_OF_DATE:
                good = [newer.date for newer in levels[:index] if newer.status not in _NOT_GOOD]
                since = min(good, default=level.date)
            return Match(level.status, level.date, level.advisories, since)
    raise TcbMismatch(f"no TCB level matches the {subject}")


def is_at_least(svns: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether every SVN is at least the wanted one. Both have the same length."""
    return all(have >= want for have, want in zip(svns, wanted, strict=True))
