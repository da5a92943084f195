"""Case files: one JSON file each with evidence, what a verifier needs beside it, the time, and the outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kbs.attestation.model import Binding, Evidence, VerifiedClaims, Verifier, VerifierOptions
from kbs.attestation.verifiers import azure_vtpm, cca, csv, hygondcu, nitro, sample, se, sgx, snp, tdx, tpm
from kbs.protocol.tee import Tee

FACTORIES = {
    Tee.AZ_SNP_VTPM: azure_vtpm.build_snp,
    Tee.AZ_TDX_VTPM: azure_vtpm.build_tdx,
    Tee.CCA: cca.build,
    Tee.NITRO: nitro.build,
    Tee.CSV: csv.build,
    Tee.HYGON_DCU: hygondcu.build,
    Tee.SAMPLE: sample.build,
    Tee.SAMPLE_DEVICE: sample.build_device,
    Tee.SE: se.build,
    Tee.SGX: sgx.build,
    Tee.SNP: snp.build,
    Tee.TDX: tdx.build,
    Tee.TPM: tpm.build,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One case file, decoded."""

    name: str
    evidence: Evidence
    endorsements: Mapping[str, Any]
    options: VerifierOptions
    binding: Binding
    at: datetime
    expect: Mapping[str, Any]

    def verifier(self) -> Verifier:
        """A verifier with the anchors and options of the case."""
        return FACTORIES[self.evidence.tee](self.options)

    def verify(self) -> Sequence[VerifiedClaims]:
        """Run the case without a network."""
        verifier = self.verifier()
        given = verifier.endorsements_from(self.evidence, self.endorsements)
        return verifier.verify(self.evidence, given, self.binding, self.at)


def load(path: Path) -> Case:
    """Read one case file."""
    case = json.loads(path.read_text())
    init_data = case["init_data"]
    return Case(
        name=case["case"],
        evidence=Evidence(Tee(case["tee"]), case["evidence"]),
        endorsements=case["endorsements"],
        options=VerifierOptions(case["options"], case["anchors"]),
        binding=Binding(bytes.fromhex(case["report_data"]), None if init_data is None else bytes.fromhex(init_data)),
        at=datetime.fromisoformat(case["now"]),
        expect=case["expect"],
    )
