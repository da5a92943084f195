"""Messages of type `corim`: CoRIM by upstream's names, signed or not. Signatures are not this module's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvps.manifests import corim, corim_names, cose


def extract(payload: bytes) -> Mapping[str, Any]:
    """Digests and raw values of all reference triples. Of several measurements with one name the last is kept, and
    hash algorithms are left out, as upstream's policies expect.

    Raises:
        StatementUnacceptable: neither an unsigned CoRIM nor a COSE_Sign1 message around one.

    Source: rvps 4.3.
    """
    unsigned = cose.payload_of(payload) if cose.is_sign1(payload) else payload
    return corim_names.upstream_values(corim.read(unsigned))
