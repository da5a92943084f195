"""Whether this service is about to end: told to one process, and known to all its workers at once.

A load balancer goes on sending for as long as it takes to hear that nobody is ready here. Until then what comes is
answered, and only `/readyz` says no.
"""

from __future__ import annotations

import mmap
from typing import Final

from kbs.errors import ShuttingDown

_NO: Final = b"\0"
_YES: Final = b"\1"


class Leaving:
    """One octet of memory that is shared with all processes forked later.

    Args:
        seconds: how long to go on serving after `announce`.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds: Final = seconds
        self._shared = mmap.mmap(-1, 1)

    def announce(self) -> None:
        """Say so, for good."""
        self._shared[:] = _YES

    @property
    def is_announced(self) -> bool:
        """Whether somebody said so."""
        return self._shared[:] != _NO

    def check(self) -> None:
        """
        Raises:
            ShuttingDown: it was announced.
        """
        if self.is_announced:
            raise ShuttingDown("about to end")
