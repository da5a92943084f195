"""The SNP verifier: one report against pinned roots, a handshake and a moment in time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from kbs.attestation.endorsements.amd import AmdProduct
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.sev.claims import report_claims
from kbs.attestation.sev.verification import ReportVerifier
from kbs.attestation.verifiers.snp.binding import check_binding
from kbs.attestation.verifiers.snp.evidence import Presented, read
from kbs.attestation.verifiers.snp.options import SnpOptions
from kbs.protocol.tee import Tee


class SnpVerifier:
    """Implements `kbs.attestation.model.Verifier` for `snp`. Threads may share it.

    Trusted: the roots and options it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, roots: Mapping[AmdProduct, AmdRoots], options: SnpOptions) -> None:
        self._options = options
        self._reports = ReportVerifier(
            roots, vlek_csp_ids=options.vlek_csp_ids, allowed_chip_ids=options.report.allowed_chip_ids
        )
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """What `ReportVerifier.needs` says.

        Raises:
            EvidenceRejected: the evidence does not parse, or names no chip to ask a VCEK for.
        """
        presented = self._read(evidence)
        self._latest.pair = (evidence, presented)
        return self._reports.needs(presented.report, presented.vek)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain, revocation and binding as of `at`. Numbers: verifiers 4.4.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 2, and 4 as far as the report names its product.
        presented = self._take(evidence)
        report = presented.report
        # 3 to 11, 13. The rest of these, 12 and 15 are claims: a policy decides.
        endorsed = self._reports.verify(report, presented.vek, endorsements, at)
        # 14.
        check_binding(report, binding)
        claims = {
            **report_claims(report, endorsed.vek),
            "report_data": report.report_data.hex(),
            "init_data": report.host_data.hex(),
            "binding": "not_checked" if binding.report_data is None else "checked",
            **self._options.report.revocation_claims(is_checked=endorsed.is_revocation_checked),
        }
        return [VerifiedClaims(Tee.SNP, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `crl`, `vcek`, `vlek`, each one text, DER or PEM in base64. Others are ignored.

        Raises:
            EvidenceRejected: the evidence does not parse.
            EvidenceMalformed: a member is not base64.
        """
        return self._reports.endorsements_from(self._read(evidence).report, given)

    def _take(self, evidence: Evidence) -> Presented:
        """What `needs` read from this very object a moment ago, or else read it now: reading takes 100 µs."""
        latest, presented = self._latest.__dict__.pop("pair", (None, None))
        return presented if latest is evidence and presented is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> Presented:
        options = self._options
        return read(evidence.body, options.report.v2_product, allow_trailing_bytes=options.allow_trailing_bytes)
