"""Secure Execution evidence as guests send it: base64 members, lengths checked, nothing trusted.

Source: verifiers 9.4; guest-components, IBM SE attester.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.verifiers.se.arcb import ADDITIONAL_SIZE, PHKH_SIZE
from kbs.attestation.verifiers.se.measurement import CUID_SIZE, MEASUREMENT_SIZE, TAGS_SIZE
from kbs.errors import EvidenceMalformed

_SIZES: Final = {  # smallest, largest
    "measurement": (MEASUREMENT_SIZE, MEASUREMENT_SIZE),
    "additional_data": (ADDITIONAL_SIZE, ADDITIONAL_SIZE),
    "user_data": (0, 256),
    "cuid": (CUID_SIZE, CUID_SIZE),
    "encr_measurement_key": (0, 1024),
    "encr_request_nonce": (0, 1024),
    "image_hdr_tags": (TAGS_SIZE, TAGS_SIZE),
}


@dataclass(frozen=True, slots=True)
class Presented:
    """The members of the evidence, as octets."""

    measurement: bytes
    additional_data: bytes
    user_data: bytes
    cuid: bytes
    encr_measurement_key: bytes
    encr_request_nonce: bytes
    image_hdr_tags: bytes

    @property
    def image_phkh(self) -> bytes:
        """Hash of the host key that the image was unpacked with."""
        return self.additional_data[:PHKH_SIZE]

    @property
    def attestation_phkh(self) -> bytes:
        """Hash of the host key that the request was read with."""
        return self.additional_data[PHKH_SIZE:]


def read_evidence(body: Any) -> Presented:
    """Decode the members. Others are ignored: newer guests may send more, and nothing here looks at it.

    Raises:
        EvidenceMalformed: a member missing, not base64, or of a wrong length.
    """
    if not isinstance(body, dict):
        raise EvidenceMalformed("SE evidence is not an object")
    return Presented(**{name: _octets(body, name, *sizes) for name, sizes in _SIZES.items()})


def _octets(body: dict[str, Any], name: str, smallest: int, largest: int) -> bytes:
    text = body.get(name)
    if not isinstance(text, str) or len(text) > 4 * (largest // 3 + 1):
        raise EvidenceMalformed(f"SE evidence: {name} is missing, or not base64 of the right length")
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise EvidenceMalformed(f"SE evidence: {name} is not base64") from err
    if not smallest <= len(found) <= largest:
        raise EvidenceMalformed(f"SE evidence: {name} has a wrong length")
    return found
