"""Settings of the Azure verifiers, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.model import Json
from kbs.attestation.verifiers.azure_vtpm.evidence import BOUND_VERSION
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_COMMON: Final = {"az_min_evidence_version", "allow_unchecked_revocation"}
_SNP: Final = _COMMON | {"az_typed_claims", "snp_v2_product"}


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What an operator may relax for either TEE.

    min_version: lowest evidence version taken. Below 2 the hardware report may be of another challenge: the vTPM's
        quote is still fresh, the hardware's state perhaps no more.
    waive_revocation: an absent revocation list does not bar an affirming result; visible as `revocation_waived`.
    """

    min_version: int = BOUND_VERSION
    waive_revocation: bool = False

    def revocation_claims(self, *, is_checked: bool) -> dict[str, Json]:
        """What is said of revocation lists: compared with one, or not, and whether that was waived."""
        if is_checked:
            return {"revocation": "checked"}
        if self.waive_revocation:
            return {"revocation": "not_checked", "revocation_waived": True}
        return {"revocation": "not_checked"}


@dataclass(frozen=True, slots=True)
class AzSnpOptions:
    """What an operator may choose for `az-snp-vtpm`.

    typed_claims: numbers, booleans and hex as for `snp`, in place of upstream's texts and base64.
    v2_product: which processors make reports of version 2, which do not say it themselves; None refuses them.
    """

    common: CommonOptions = CommonOptions()
    typed_claims: bool = False
    v2_product: AmdProduct | None = None


def read_snp_options(options: Mapping[str, Any]) -> AzSnpOptions:
    """Decode the settings of `az-snp-vtpm`.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    _refuse_unknown(options, _SNP, Tee.AZ_SNP_VTPM)
    typed = options.get("az_typed_claims", False)
    if not isinstance(typed, bool):
        raise ConfigInvalid("az-snp-vtpm: az_typed_claims is not a boolean")
    product = options.get("snp_v2_product")
    if product not in (None, AmdProduct.MILAN, AmdProduct.GENOA):  # Turin's firmware never made version 2
        raise ConfigInvalid("az-snp-vtpm: snp_v2_product is neither Milan nor Genoa")
    return AzSnpOptions(
        read_common_options(options, Tee.AZ_SNP_VTPM), typed, None if product is None else AmdProduct(product)
    )


def read_common_options(options: Mapping[str, Any], tee: Tee) -> CommonOptions:
    """Decode the settings that both have.

    Raises:
        ConfigInvalid: a value of a wrong type.
    """
    version = options.get("az_min_evidence_version", BOUND_VERSION)
    if type(version) is not int or not 0 <= version <= BOUND_VERSION:
        raise ConfigInvalid(f"{tee}: az_min_evidence_version is not 0, 1 or 2")
    waived = options.get("allow_unchecked_revocation", [])
    if not isinstance(waived, list | tuple) or not all(isinstance(name, str) for name in waived):
        raise ConfigInvalid(f"{tee}: allow_unchecked_revocation is not a list of texts")
    if strangers := set(waived) - set(Tee):
        raise ConfigInvalid(f"{tee}: allow_unchecked_revocation names unknown TEEs {sorted(strangers)}")
    return CommonOptions(version, tee in waived)


def _refuse_unknown(options: Mapping[str, Any], known: set[str], tee: Tee) -> None:
    if unknown := set(options) - known:
        raise ConfigInvalid(f"{tee}: unknown options {sorted(unknown)}")
