"""Reference values from CoRIM files whose signature, if there is one, is somebody else's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvps.errors import StatementUnacceptable
from rvps.manifests import corim, corim_names, cose


def read(raw: bytes) -> corim.Manifest:
    """Read an unsigned CoRIM, or that in a COSE_Sign1 message whose signature is not looked at.

    Raises:
        StatementUnacceptable: neither.
    """
    return corim.read(cose.payload_of(raw) if cose.is_sign1(raw) else raw)


def values(manifest: corim.Manifest, *, upstream: bool = False) -> Mapping[str, Any]:
    """By our names, or by upstream's, of which the last measurement of a name counts.

    Raises:
        StatementUnacceptable: no values, or what `rvps.manifests.corim_names.own_values` refuses.
    """
    found = corim_names.upstream_values(manifest) if upstream else corim_names.own_values(manifest)
    if not found:
        raise StatementUnacceptable("CoRIM: no reference values in it")
    return found
