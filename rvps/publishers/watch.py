"""The file of publishers as it is now: whoever removes a key from it need not restart anything."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from rvps.errors import ProviderUnavailable, SettingsUnacceptable
from rvps.publishers.model import NOBODY, Publishers, load

_LOG = logging.getLogger("rvps")


class PublishersOnDisk:
    """Calling it gives the publishers; the file is read again when it was written or replaced since.

    Key files that it names are read together with it: after changing one of them, `touch` the file itself.

    Args:
        required: whether a missing file is an error; otherwise it means that nobody may sign.

    Raises (when made):
        SettingsUnacceptable: the file says what cannot be used.
    """

    def __init__(self, path: Path, *, required: bool) -> None:
        self._path = path
        self._required = required
        self._lock = Lock()
        self._stamp, self._publishers = self._read()

    def __call__(self) -> Publishers:
        """
        Raises:
            ProviderUnavailable: the file was changed into something that cannot be used; nothing signed is taken on
                until it is mended.
        """
        with self._lock:
            try:
                if self._stamp_now() != self._stamp:
                    self._stamp, self._publishers = self._read()
                    _LOG.info("publishers were read again", extra={"members": {"publishers": len(self._publishers)}})
            except SettingsUnacceptable as err:
                _LOG.error("the file of publishers cannot be used", extra={"members": {"reason": str(err)}})
                raise ProviderUnavailable("the file of publishers cannot be used; see the log") from err
            return self._publishers

    def _read(self) -> tuple[tuple[int, int, int] | None, Publishers]:
        stamp = self._stamp_now()  # before the content: what is written in between is noticed next time
        return stamp, NOBODY if stamp is None else load(self._path)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            if self._required:
                raise SettingsUnacceptable(f"{self._path}: no such file") from None
            return None
        except OSError as err:
            raise SettingsUnacceptable(f"{self._path}: {err.strerror}") from err
        return found.st_mtime_ns, found.st_ino, found.st_size
