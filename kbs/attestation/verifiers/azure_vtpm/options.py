"""Settings of the Azure verifiers, read once and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.attestation.dcap.options import KNOWN as DCAP
from kbs.attestation.dcap.options import DcapOptions, read_dcap_options, read_flag
from kbs.attestation.sev.options import KNOWN as SEV
from kbs.attestation.sev.options import ReportOptions, read_report_options
from kbs.attestation.verifiers.azure_vtpm.evidence import BOUND_VERSION
from kbs.errors import ConfigInvalid
from kbs.protocol.tee import Tee

_MIN_VERSION: Final = "az_min_evidence_version"


@dataclass(frozen=True, slots=True)
class AzSnpOptions:
    """What an operator may choose for `az-snp-vtpm`.

    min_version: lowest evidence version taken. Below 2 the hardware report may be of another challenge: the vTPM's
        quote is still fresh, what the hardware says perhaps no more.
    typed_claims: numbers, booleans and hex as for `snp`, in place of upstream's texts and base64.
    """

    report: ReportOptions = field(default_factory=ReportOptions)
    min_version: int = BOUND_VERSION
    typed_claims: bool = False


@dataclass(frozen=True, slots=True)
class AzTdxOptions:
    """What an operator may choose for `az-tdx-vtpm`. `min_version`: see `AzSnpOptions`.

    dcap: as for `tdx`, but zeros behind a quote are allowed unless the setting says otherwise: Azure's quoting service
        appends them to all.
    """

    dcap: DcapOptions = field(default_factory=DcapOptions)
    min_version: int = BOUND_VERSION


def read_snp_options(options: Mapping[str, Any]) -> AzSnpOptions:
    """Decode the settings of `az-snp-vtpm`.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    _refuse_unknown(options, SEV | {_MIN_VERSION, "az_typed_claims"}, Tee.AZ_SNP_VTPM)
    return AzSnpOptions(
        read_report_options(options, Tee.AZ_SNP_VTPM),
        _min_version(options, Tee.AZ_SNP_VTPM),
        read_flag(options, "az_typed_claims", Tee.AZ_SNP_VTPM),
    )


def read_tdx_options(options: Mapping[str, Any]) -> AzTdxOptions:
    """Decode the settings of `az-tdx-vtpm`.

    Raises:
        ConfigInvalid: an unknown name or a value of a wrong type.
    """
    _refuse_unknown(options, DCAP | {_MIN_VERSION}, Tee.AZ_TDX_VTPM)
    dcap = read_dcap_options({"allow_trailing_bytes": True, **options}, Tee.AZ_TDX_VTPM)
    return AzTdxOptions(dcap, _min_version(options, Tee.AZ_TDX_VTPM))


def _min_version(options: Mapping[str, Any], tee: Tee) -> int:
    version = options.get(_MIN_VERSION, BOUND_VERSION)
    if type(version) is not int or not 0 <= version <= BOUND_VERSION:
        raise ConfigInvalid(f"{tee}: {_MIN_VERSION} is not 0, 1 or 2")
    return version


def _refuse_unknown(options: Mapping[str, Any], known: frozenset[str], tee: Tee) -> None:
    if unknown := set(options) - known:
        raise ConfigInvalid(f"{tee}: unknown options {sorted(unknown)}")
