"""Claims about a TPM: upstream's names (attestation-service 6.8), and more."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from kbs.attestation.model import Json
from kbs.attestation.tpm.pcrs import INIT_DATA_PCR, is_boot_measured
from kbs.attestation.verifiers.tpm.evidence import Presented
from kbs.attestation.verifiers.tpm.trust import TrustedKey, certificate_claims


def claims_of(presented: Presented, pcrs: Mapping[int, bytes], signer: TrustedKey) -> dict[str, Json]:
    """What the quote says. Every value stands under its signature.

    `pcrNN` and `init_data` (PCR 8) are hex, `report_data` is the nonce in hex, `ak_public` base64.
    """
    quote = presented.quote
    claims: dict[str, Json] = {
        "ak_public": base64.b64encode(presented.ak).decode("ascii"),
        "report_data": quote.extra_data.hex(),
        "init_data": pcrs[INIT_DATA_PCR].hex(),
        **{f"pcr{index:02}": value.hex() for index, value in pcrs.items()},
        "ak_enrolled": signer.certificate is None,
        "boot_measured": is_boot_measured(pcrs),
        "clock": {
            "milliseconds": quote.clock.clock,
            "reset_count": quote.clock.reset_count,
            "restart_count": quote.clock.restart_count,
            "safe": quote.clock.is_safe,
        },
        "firmware_version": f"{quote.firmware_version:016x}",
        "qualified_signer": quote.qualified_signer.hex(),
        "signature": f"{presented.signature.scheme.name}-{presented.signature.hash_algorithm.name}",
    }
    if signer.certificate is not None:
        claims["ak_certificate"] = certificate_claims(signer.certificate)
    return claims
