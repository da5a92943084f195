"""Under which reference value names policies look computed values up.

Source: attestation-service 2.5 for PCR 11 and the init data; policies/lib/cpu.rego has the rows. Names for other PCRs
are made the same way, from the claim's name, for policies of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PCR_TEES: Final[Mapping[str, str]] = {
    "az-snp-vtpm": "sha256",
    "az-tdx-vtpm": "sha256",
    "nitro": "sha384",
    "tpm": "sha256",
}
"""TEEs whose evidence shows PCRs of a TPM, with the bank that it is taken from."""

_FORMS: Final = {
    "az-snp-vtpm": "snp_pcr{:02}",
    "az-tdx-vtpm": "tdx_pcr{:02}",
    "nitro": "nitrotpm_pcr{}",
    "tpm": "tpm_pcr{:02}",
}


def pcr_name(tee: str, number: int) -> str:
    """The name of PCR `number` for one of `PCR_TEES`: `tpm_pcr11`, `snp_pcr11`, `nitrotpm_pcr4`."""
    return _FORMS[tee].format(number)
