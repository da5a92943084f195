"""How many processors a process may use: what its affinity and the quotas of its control groups leave of the machine.

A container with `limits.cpu: 2` on a machine of 96 cores sees 96. Workers for all of them would wait for each other,
and need the memory of 96.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CONTROLLER: Final = "cpu"


def usable_processors(root: Path = Path("/"), affinity: int | None = None) -> int:
    """At least 1. A quota of one and a half is 2: the second is of use half of the time.

    Args:
        root: where `proc` and `sys` are.
        affinity: processors that the scheduler may put this process on; None: asks.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Of every group that this process is in, and of those above them; those without a quota are left out."""
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:  # cgroups(7), version 2
            for folder in _upwards(mounted, group):
                yield from _quota(*_two(_text(folder / "cpu.max")))
        elif _CONTROLLER in controllers.split(","):  # version 1
            for folder in _upwards(_hierarchy(mounted, controllers), group):
                quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
                yield from _quota(quota, period)


def _hierarchy(mounted: Path, controllers: str) -> Path:
    whole = mounted / controllers
    return whole if whole.is_dir() else mounted / _CONTROLLER


def _upwards(mounted: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it. One that is not seen from in here ends at the mount's own, which is the
    container's."""
    folder = mounted / group.strip("/")
    while folder != mounted:
        yield folder
        folder = folder.parent
    yield mounted


def _two(text: str) -> tuple[str, str]:
    first, _, second = text.strip().partition(" ")
    return first, second


def _quota(quota: str, period: str) -> Iterator[float]:
    """`max` and -1 are no quota."""
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
