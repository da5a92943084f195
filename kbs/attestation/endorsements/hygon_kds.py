"""Hygon's certificate service: HSK and CEK by serial number or chip id.

The certificates are in Hygon's own format, so nothing of them is checked here but that both name the right role and
the size is right; the verifier checks their chain to the pinned root.

Source: Hygon's certificate service; verifiers 8.2.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from kbs.attestation.endorsements.amd_kds import Fetcher
from kbs.attestation.endorsements.contents import NO_END
from kbs.attestation.endorsements.files import read_bounded
from kbs.attestation.endorsements.hygon import HSK_CEK_SIZE, parse_name
from kbs.attestation.endorsements.model import Obtained
from kbs.errors import EndorsementsUnavailable

KDS_URL: Final = "https://cert.hygon.cn"
_REFRESH: Final = timedelta(days=30)  # they carry no dates; asked again so that a replaced pair is noticed
_FILE_REFRESH: Final = timedelta(minutes=5)
_HSK_USAGE: Final = (slice(36, 40), 0x13)
_CEK_USAGE: Final = (slice(832 + 8, 832 + 12), 0x1004)


class HygonKds:
    """Asks Hygon."""

    def __init__(self, fetcher: Fetcher, base_url: str = KDS_URL) -> None:
        self._fetcher = fetcher
        self._base_url = base_url.rstrip("/")

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`."""
        serial = _serial(name)
        if serial is None:
            return None
        data = self._fetcher.get(f"{self._base_url}/hsk_cek?snumber={serial}")
        if data is None:
            return None
        if not is_pair(data):
            raise EndorsementsUnavailable("a vendor service answered something else")
        return Obtained(data, at + _REFRESH, NO_END)


class HygonStore:
    """A folder that an operator fills: `hsk_cek/<serial or chip id>/hsk_cek.cert` (attestation-service 6.5)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, name: str, previous: bytes | None, at: datetime) -> Obtained | None:  # noqa: ARG002 - the port's
        """See `Endorser`."""
        serial = _serial(name)
        data = None if serial is None else read_bounded(self._folder / "hsk_cek" / serial / "hsk_cek.cert")
        return None if data is None else Obtained(data, at + _FILE_REFRESH, NO_END)


def is_pair(data: bytes) -> bool:
    """Whether it has the size of an HSK and a CEK and their roles stand where they belong."""
    return len(data) == HSK_CEK_SIZE and all(
        int.from_bytes(data[place], "little") == usage for place, usage in (_HSK_USAGE, _CEK_USAGE)
    )


def _serial(name: str) -> str | None:
    try:
        return parse_name(name)
    except ValueError:
        return None
