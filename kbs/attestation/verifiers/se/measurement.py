"""The attestation measurement: an HMAC that only the machine and whoever made the request can work out.

Source: verifiers 9.4; s390-tools, attestation measurement (HMAC-SHA-512).
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

KEY_SIZE: Final = 64
NONCE_SIZE: Final = 16
MEASUREMENT_SIZE: Final = 64
TAGS_SIZE: Final = 208
"""Of an image header: page list, address list and tweak list digest, 64 bytes each, and the tag, 16 bytes."""
CUID_SIZE: Final = 16

_SIZES: Final = struct.Struct(">HxxI")  # user data, additional data


def measure(key: bytes, tags: bytes, cuid: bytes, user_data: bytes, nonce: bytes, additional_data: bytes) -> bytes:
    """The measurement of an image that runs as `cuid`.

    Args:
        tags: `TAGS_SIZE` bytes of the image header.
        nonce: of the request; empty for a request without one.
    """
    sizes = _SIZES.pack(len(user_data), len(additional_data))
    return hmac.digest(key, b"".join((tags, cuid, sizes, user_data, nonce, additional_data)), "sha512")
