"""Intake of signed messages: one module per format, each verifies first and reads what was signed afterwards."""

from __future__ import annotations

from typing import Final

from rvps.errors import StatementUnacceptable
from rvps.intake import corim, dsse, sigstore, swid
from rvps.intake.model import Intake
from rvps.manifests import cose

INTAKES: Final[dict[str, Intake]] = {
    dsse.KIND: dsse.Dsse(),
    sigstore.KIND: sigstore.SigstoreBundle(),
    "signed-corim": corim.SIGNED_CORIM,
    "signed-swid": swid.SIGNED_SWID,
}
"""Message type → its intake. A constant after import."""


def intake_for(kind: str) -> Intake:
    """The intake of one type of signed message.

    Raises:
        StatementUnacceptable: no such type.
    """
    found = INTAKES.get(kind)
    if found is None:
        known = ", ".join(sorted(INTAKES)) or "none"
        raise StatementUnacceptable(f"no signed messages of type {kind[:64]!r} are read here; types: {known}")
    return found


def signed_form(kind: str, payload: bytes) -> Intake | None:
    """The intake of a message of an upstream type, `corim` or `swid`, whose payload is signed although the type does
    not ask for it; its values have upstream's names. None: the payload is not signed, or the type is another.

    Args:
        payload: untrusted; of a SWID it is parsed to see whether there is a signature in it.

    Raises:
        StatementUnacceptable: a `swid` payload that is not XML that is read here.
    """
    if kind == "corim":
        return corim.UPSTREAM_NAMES if cose.is_sign1(payload) else None
    if kind == "swid":
        return swid.UPSTREAM_NAMES if swid.is_signed(payload) else None
    return None
