"""The `az-snp-vtpm` verifier: an SNP report that vouches for a vTPM, and a quote of that vTPM."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kbs.attestation.endorsements.amd import AmdProduct, VekKind
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.sev.chain import EndorsedKey
from kbs.attestation.sev.claims import report_claims
from kbs.attestation.sev.report import Report, parse
from kbs.attestation.sev.verification import ReportVerifier, Vek
from kbs.attestation.verifiers.azure_vtpm.evidence import Presented, read_snp
from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType
from kbs.attestation.verifiers.azure_vtpm.options import AzSnpOptions
from kbs.attestation.verifiers.azure_vtpm.vtpm import Opened, open_hcl_report, verify_vtpm, vtpm_claims
from kbs.protocol.tee import Tee

_TEXTS: Final = (  # claims that upstream writes as texts (attestation-service 6.6)
    "policy_abi_major",
    "policy_abi_minor",
    "policy_smt_allowed",
    "policy_migrate_ma",
    "policy_debug_allowed",
    "policy_single_socket",
    "reported_tcb_bootloader",
    "reported_tcb_tee",
    "reported_tcb_snp",
    "reported_tcb_microcode",
    "platform_tsme_enabled",
    "platform_smt_enabled",
)


@dataclass(frozen=True, slots=True)
class _Read:
    presented: Presented
    opened: Opened
    report: Report
    vek: Vek | None


class AzSnpVerifier:
    """Implements `kbs.attestation.model.Verifier` for `az-snp-vtpm`. Threads may share it.

    Trusted: the roots and options it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, roots: Mapping[AmdProduct, AmdRoots], options: AzSnpOptions) -> None:
        self._options = options
        self._reports = ReportVerifier(roots, allowed_chip_ids=options.report.allowed_chip_ids)
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """As for `snp`: the product's revocation list, and the VCEK where the guest sent none.

        Raises:
            EvidenceRejected: the evidence does not parse, or names no chip to ask a VCEK for.
        """
        found = self._read(evidence)
        self._latest.pair = (evidence, found)
        return self._reports.needs(found.report, found.vek)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check the vTPM's quote, and the hardware report behind it, as of `at`. Numbers: verifiers 5.3.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 3.
        found = self._take(evidence)
        # 2, 4 to 8, 11.
        quoted = verify_vtpm(found.presented, found.opened, found.report.report_data, binding)
        # 9. VMPL and guest policy are claims: a policy decides.
        endorsed = self._reports.verify(found.report, found.vek, endorsements, at)
        claims = {
            **self._hardware_claims(found.report, endorsed.vek),
            **vtpm_claims(found.opened, quoted, found.presented, binding),
            **self._options.report.revocation_claims(is_checked=endorsed.is_revocation_checked),
        }
        return [VerifiedClaims(Tee.AZ_SNP_VTPM, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `crl` and `vcek`, DER or PEM in base64. Others are ignored.

        Raises:
            EvidenceRejected: the evidence does not parse, or a member is not base64.
        """
        return self._reports.endorsements_from(self._read(evidence).report, given)

    def _take(self, evidence: Evidence) -> _Read:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, found = self._latest.__dict__.pop("pair", (None, None))
        return found if latest is evidence and found is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> _Read:
        presented = read_snp(evidence.body, self._options.min_version)
        opened = open_hcl_report(presented, ReportType.SNP)
        report = parse(opened.hcl.hardware_report, self._options.report.v2_product)
        vek = None if presented.vcek is None else Vek(VekKind.VCEK, presented.vcek)
        return _Read(presented, opened, report, vek)

    def _hardware_claims(self, report: Report, vek: EndorsedKey) -> dict[str, Json]:
        claims = report_claims(report, vek)
        if self._options.typed_claims:
            return claims
        as_text = {name: _text(claims[name]) for name in _TEXTS}
        return {**claims, **as_text, "measurement": base64.b64encode(report.measurement).decode("ascii")}


def _text(value: Json) -> str:
    return str(value).lower()
