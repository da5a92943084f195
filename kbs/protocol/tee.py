"""TEE names as the wire spells them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Tee(StrEnum):
    """TEE names as on the wire (kbs-protocol 2.2).

    `nitro` is an extension of this broker: AWS Nitro Enclaves and NitroTPM, for which upstream has no name. Its guests
    never send it, and its policies have no rules for it.
    """

    AZ_SNP_VTPM = "az-snp-vtpm"
    AZ_TDX_VTPM = "az-tdx-vtpm"
    CCA = "cca"
    CSV = "csv"
    HYGON_DCU = "hygondcu"
    NITRO = "nitro"
    NVIDIA = "nvidia"
    NVIDIA_DPU = "nvidia-dpu"
    SAMPLE = "sample"
    SAMPLE_DEVICE = "sampledevice"
    SE = "se"
    SGX = "sgx"
    SNP = "snp"
    TDX = "tdx"
    TPM = "tpm"


TEE_ALIASES: Mapping[str, Tee] = {
    "azsnpvtpm": Tee.AZ_SNP_VTPM,  # guests of the 0.14 and 0.15 generation
    "aztdxvtpm": Tee.AZ_TDX_VTPM,
    "nvidiadpu": Tee.NVIDIA_DPU,
}

TEES: Final[Mapping[str, Tee]] = {str(tee): tee for tee in Tee} | dict(TEE_ALIASES)
"""Every name that a guest may say."""
