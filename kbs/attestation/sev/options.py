"""Settings that verifiers of SNP reports share, read once and strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.model import Json
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

KNOWN: Final = frozenset({"snp_v2_product", "snp_allowed_chip_ids", "allow_unchecked_revocation"})

_CHIP_ID: Final = re.compile(r"[0-9a-fA-F]{128}|[0-9a-fA-F]{16}")
_CHIP_ID_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What an operator may choose for any SNP report.

    v2_product: which processors make reports of version 2, which do not say it themselves; None refuses them.
    allowed_chip_ids: CHIP_ID of the machines that may attest, 64 bytes each; None: all that AMD vouches for. Reports
        signed by a VLEK name no chip and are refused when this is set.
    waive_revocation: an absent revocation list does not bar an affirming result; visible as `revocation_waived`.
    """

    v2_product: AmdProduct | None = None
    allowed_chip_ids: frozenset[bytes] | None = None
    waive_revocation: bool = False

    def revocation_claims(self, *, is_checked: bool) -> dict[str, Json]:
        """What is said of revocation lists: compared with one, or not, and whether that was waived."""
        if is_checked:
            return {"revocation": "checked"}
        if self.waive_revocation:
            return {"revocation": "not_checked", "revocation_waived": True}
        return {"revocation": "not_checked"}


def read_report_options(options: Mapping[str, Any], tee: Tee) -> ReportOptions:
    """Decode the shared settings; others are not looked at.

    Raises:
        ConfigInvalid: a value of a wrong type.
    """
    waived = read_texts(options, "allow_unchecked_revocation", tee)
    if strangers := waived - set(Tee):
        raise ConfigInvalid(f"{tee}: allow_unchecked_revocation names unknown TEEs {sorted(strangers)}")
    product = options.get("snp_v2_product")
    if product not in (None, AmdProduct.MILAN, AmdProduct.GENOA):  # Turin's firmware never made version 2
        raise ConfigInvalid(f"{tee}: snp_v2_product is neither Milan nor Genoa")
    return ReportOptions(
        v2_product=None if product is None else AmdProduct(product),
        allowed_chip_ids=_chip_ids(options, tee) if "snp_allowed_chip_ids" in options else None,
        waive_revocation=tee in waived,
    )


def _chip_ids(options: Mapping[str, Any], tee: Tee) -> frozenset[bytes]:
    """Hex of 64 bytes; from Turin on of the 8 that count, as AMD's addresses have it, or of all 64."""
    found = read_texts(options, "snp_allowed_chip_ids", tee)
    if not all(_CHIP_ID.fullmatch(each) for each in found):
        raise ConfigInvalid(f"{tee}: snp_allowed_chip_ids is not a list of chip ids, 128 or 16 hex digits each")
    return frozenset(bytes.fromhex(each).ljust(_CHIP_ID_SIZE, b"\0") for each in found)


def read_texts(options: Mapping[str, Any], name: str, tee: Tee) -> frozenset[str]:
    """A list of texts, none of them empty; by default none at all.

    Raises:
        ConfigInvalid: anything else.
    """
    value = options.get(name, ())
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigInvalid(f"{tee}: {name} is not a list of texts")
    return frozenset(value)
