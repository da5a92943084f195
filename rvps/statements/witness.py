"""Who remembers the newest event outside the store, so that a store that was set back is noticed.

A copy of yesterday's store is whole by itself: chain and head fit. What it lacks are the events since then, and one of
them may be a revocation.

Source: threat-model P-RULE-5.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from rvps.errors import ProviderUnavailable

_LOG = logging.getLogger("rvps")
_LINE: Final = re.compile(rb"([0-9]{16}) ([0-9a-f]{64})\n")
_MOST: Final = 128  # bytes


class Witness(Protocol):
    """Called under the lock of the log."""

    @property
    def acceptance(self) -> str:
        """What an operator does who set the store back on purpose, as the end of a sentence."""

    def seen(self) -> tuple[int, str] | None:
        """Number and digest of the newest event seen, or None.

        Raises:
            ProviderUnavailable: it is not known whether there was one.
        """

    def saw(self, number: int, digest: str) -> None:
        """Remember an event if it is newer than what is remembered."""


class Memory:
    """Notices what is set back while the process runs."""

    acceptance = "start anew to accept the store as it is"

    def __init__(self) -> None:
        self._seen: tuple[int, str] | None = None

    def seen(self) -> tuple[int, str] | None:
        """What was seen last."""
        return self._seen

    def saw(self, number: int, digest: str) -> None:
        """Remember it."""
        if number and (self._seen is None or number > self._seen[0]):
            self._seen = (number, digest)


class WitnessFile:
    """One line in a file: number and digest. Several processes may share it; the highest number stays.

    It is no secret and need not be on the disk at once: an older one only notices less.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = Memory()

    @property
    def acceptance(self) -> str:
        """See `Witness`."""
        return f"to accept the store as it is, remove {self._path} and start anew"

    def seen(self) -> tuple[int, str] | None:
        """The newer one of what this process saw and what the file says."""
        here, stored = self._here.seen(), self._read()
        return max((each for each in (here, stored) if each is not None), default=None, key=lambda each: each[0])

    def saw(self, number: int, digest: str) -> None:
        """Remember it. A file that cannot be written is told and stops nobody: the event is in the store."""
        known = self._here.seen()
        self._here.saw(number, digest)
        if known == self._here.seen():
            return
        try:
            stored = self._read()
            if stored is None or number > stored[0]:
                self._write(f"{number:016d} {digest}\n".encode())
        except (OSError, ProviderUnavailable) as err:
            _LOG.error("the newest statement is not remembered", extra={"members": {"reason": str(err)}})

    def _read(self) -> tuple[int, str] | None:
        try:
            with self._path.open("rb") as file:
                found = _LINE.fullmatch(file.read(_MOST))
        except FileNotFoundError:
            return None
        except OSError as err:
            raise ProviderUnavailable(f"{self._path}: {err.strerror}") from err
        if found is None:
            raise ProviderUnavailable(f"{self._path}: does not read; {self.acceptance}")
        return int(found[1]), found[2].decode()

    def _write(self, line: bytes) -> None:
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")
        try:
            with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(line)
            scratch.replace(self._path)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
