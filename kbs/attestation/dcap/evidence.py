"""Quotes in evidence JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from kbs.attestation.dcap.quote import MAX_QUOTE
from kbs.errors import EvidenceMalformed

_MAX_TEXT: Final = (MAX_QUOTE + 2) // 3 * 4


def quote_bytes(body: Any) -> bytes:
    """The quote: member `quote` in base64, or the whole body when it is bytes.

    Raises:
        EvidenceMalformed.
    """
    if isinstance(body, bytes):
        return body
    if not isinstance(body, Mapping):
        raise EvidenceMalformed("evidence is not an object")
    return base64_member(body, "quote", _MAX_TEXT)


def base64_member(body: Mapping[str, Any], name: str, limit: int) -> bytes:
    """A member in base64, standard alphabet, of at most `limit` characters.

    Raises:
        EvidenceMalformed.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise EvidenceMalformed(f"{name} is not text")
    if len(value) > limit:
        raise EvidenceMalformed(f"{name} is too long")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise EvidenceMalformed(f"{name} is not base64") from None
