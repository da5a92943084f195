"""Messages of type `swid`: SWID RIM by upstream's names, signed or not. Signatures are not this module's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvps.manifests import rim


def extract(payload: bytes) -> Mapping[str, Any]:
    """Hashes of all measurements that are not zeros only; those of another product or version have the same names.

    Raises:
        StatementUnacceptable: not a SWID RIM.

    Source: rvps 4.2.
    """
    return rim.upstream_values(rim.read(rim.parse(payload)))
