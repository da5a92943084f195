"""Settings of the SNP verifier, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_KNOWN: Final = {"snp_v2_product", "snp_vlek_csp_ids", "allow_unchecked_revocation", "allow_trailing_bytes"}


@dataclass(frozen=True, slots=True)
class SnpOptions:
    """What an operator may relax.

    v2_product: which processors make reports of version 2, which do not say it themselves; None refuses them.
    vlek_csp_ids: cloud providers whose VLEK may sign, as in the certificate, e.g. `CN=cc-us-east-2.amazonaws.com`.
    waive_revocation: an absent revocation list does not bar an affirming result; visible as `revocation_waived`.
    allow_trailing_bytes: of raw reports, ignore what follows the report.
    """

    v2_product: AmdProduct | None = None
    vlek_csp_ids: frozenset[str] = frozenset()
    waive_revocation: bool = False
    allow_trailing_bytes: bool = False


def read_options(options: Mapping[str, Any]) -> SnpOptions:
    """Decode the settings.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    if unknown := set(options) - _KNOWN:
        raise ConfigInvalid(f"snp: unknown options {sorted(unknown)}")
    trailing = options.get("allow_trailing_bytes", False)
    if not isinstance(trailing, bool):
        raise ConfigInvalid("snp: allow_trailing_bytes is not a boolean")
    waived = _texts(options, "allow_unchecked_revocation")
    if strangers := waived - set(Tee):
        raise ConfigInvalid(f"snp: allow_unchecked_revocation names unknown TEEs {sorted(strangers)}")
    return SnpOptions(
        v2_product=_product(options.get("snp_v2_product")),
        vlek_csp_ids=_texts(options, "snp_vlek_csp_ids"),
        waive_revocation=Tee.SNP in waived,
        allow_trailing_bytes=trailing,
    )


def _product(value: Any) -> AmdProduct | None:
    if value is None:
        return None
    if value not in (AmdProduct.MILAN, AmdProduct.GENOA):  # Turin's firmware never made version 2
        raise ConfigInvalid("snp: snp_v2_product is neither Milan nor Genoa")
    return AmdProduct(value)


def _texts(options: Mapping[str, Any], name: str) -> frozenset[str]:
    value = options.get(name, ())
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigInvalid(f"snp: {name} is not a list of texts")
    return frozenset(value)
