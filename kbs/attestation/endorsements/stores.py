"""Stores that keep any kind of endorsement under its own name: a folder, or a web server of the operator's.

`<store>/intel/tcb/tdx/00806f050000`, `<store>/ibm/crl/signing-gen2` and so on: the item as verifiers take it. Files in
a folder may have a suffix (`.der`, `.pem`, `.crl`, `.cert`, `.json`), so that people see what they are.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from kbs.attestation.endorsements.amd_kds import Fetcher
from kbs.attestation.endorsements.contents import is_name, read_contents
from kbs.attestation.endorsements.files import read_bounded
from kbs.attestation.endorsements.model import Obtained
from kbs.errors import EndorsementsUnavailable

_SUFFIXES: Final = ("", ".der", ".pem", ".crl", ".cert", ".json")
_FILE_REFRESH: Final = timedelta(minutes=5)  # an operator may replace a file
_HTTP_REFRESH: Final = timedelta(hours=6)


class NamedFiles:
    """A folder. Not found here is no more than not found here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`. A file that does not parse comes last, and is left to the verifier to refuse."""
        if not is_name(name):
            return None
        for suffix in _SUFFIXES:
            data = read_bounded(self._folder / f"{name}{suffix}")
            if data is not None:
                break
        else:
            return None
        try:
            end = read_contents(name, data).valid_until
        except ValueError:
            end = at - _FILE_REFRESH
        return Obtained(data, at + _FILE_REFRESH, end)


class NamedHttps:
    """A web server, by its base address. Items are taken as they come; verifiers check them as they check all."""

    def __init__(self, fetcher: Fetcher, base_url: str) -> None:
        self._fetcher = fetcher
        self._base_url = base_url.rstrip("/")

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:
        """See `Endorser`."""
        if not is_name(name):
            return None
        data = self._fetcher.get(f"{self._base_url}/{name}")
        if data is None:
            return None
        try:
            contents = read_contents(name, data)
            if previous is not None and contents.is_older_than(read_contents(name, previous)):
                raise EndorsementsUnavailable("a store answered an older item than before")
        except ValueError as err:
            raise EndorsementsUnavailable("a store answered something else") from err
        end = contents.valid_until
        return Obtained(data, min(at + _HTTP_REFRESH, max(end, at + _FILE_REFRESH)), end)
