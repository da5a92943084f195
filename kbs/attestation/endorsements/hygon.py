"""Hygon's words for endorsements: the pair of certificates behind a chip's PEK, by serial number or chip id.

    hygon/hsk-cek/<serial number or chip id>    HSK (832 bytes) followed by CEK (2084 bytes), as the vendor serves them

Shared by the CSV verifier, which builds the name from evidence, and by the endorsers. Knows neither the certificates'
insides nor the network.

Source: Hygon's certificate service; verifiers 8.2.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "hygon/"
HSK_CEK_SIZE: Final = 832 + 2084  # bytes

_SERIAL: Final = re.compile("[A-Za-z0-9]{1,64}")
_NAME: Final = re.compile("hygon/hsk-cek/(?P<serial>[A-Za-z0-9]{1,64})")


def hsk_cek_name(serial: str) -> str:
    """Name of a chip's HSK and CEK.

    Raises:
        ValueError: not 1 to 64 ASCII letters and digits. What comes from evidence must not reach a path otherwise.
    """
    if not _SERIAL.fullmatch(serial):
        raise ValueError("a serial number or chip id is 1 to 64 letters and digits")
    return f"hygon/hsk-cek/{serial}"


def parse_name(name: str) -> str:
    """The serial number or chip id in a name.

    Raises:
        ValueError: any other text.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("not a name of a Hygon endorsement")
    return match["serial"]
