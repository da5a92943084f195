"""The `az-tdx-vtpm` verifier: a TD quote that vouches for a vTPM, and a quote of that vTPM."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from kbs.attestation.dcap import (
    Quote,
    QuoteVerifier,
    TdReport,
    check_td,
    collateral_claims,
    parse_quote,
    td_claims,
    td_of,
)
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.azure_vtpm.evidence import Presented, read_tdx
from kbs.attestation.verifiers.azure_vtpm.hcl import ReportType
from kbs.attestation.verifiers.azure_vtpm.options import AzTdxOptions
from kbs.attestation.verifiers.azure_vtpm.tdreport import TdReportStruct, check_same_td, parse_tdreport
from kbs.attestation.verifiers.azure_vtpm.vtpm import Opened, open_hcl_report, verify_vtpm, vtpm_claims
from kbs.protocol.tee import Tee


@dataclass(frozen=True, slots=True)
class _Read:
    presented: Presented
    opened: Opened
    tdreport: TdReportStruct
    quote: Quote
    body: TdReport


class AzTdxVerifier:
    """Implements `kbs.attestation.model.Verifier` for `az-tdx-vtpm`. Threads may share it.

    Trusted: the root and options it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, root: x509.Certificate, options: AzTdxOptions) -> None:
        self._options = options
        self._quotes = QuoteVerifier(root)
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """As for `tdx`: TCB info and QE identity, both required, and both revocation lists.

        Raises:
            EvidenceRejected: the evidence does not parse.
        """
        found = self._read(evidence)
        self._latest.pair = (evidence, found)
        return self._quotes.needs(found.quote)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check the vTPM's quote, and the TD quote behind it, as of `at`. Numbers: verifiers 5.3.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 3.
        found = self._take(evidence)
        # 2, 4 to 8, 11.
        quoted = verify_vtpm(found.presented, found.opened, found.body.report_data, binding)
        # 10. Debug, SEPT_VE_DISABLE and TCB status are claims: a policy decides.
        is_complete = check_same_td(found.tdreport, found.body)
        verdict = self._quotes.verify(found.quote, endorsements, self._options.dcap.quote, at)
        check_td(found.body, ())
        claims = {
            **td_claims(found.quote, found.body),
            **collateral_claims(verdict, at, waive_revocation=self._options.dcap.waive_revocation),
            "tdreport_complete": is_complete,
            **vtpm_claims(found.opened, quoted, found.presented, binding),
        }
        return [VerifiedClaims(Tee.AZ_TDX_VTPM, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: see `QuoteVerifier.endorsements_from`.

        Raises:
            EvidenceRejected: the evidence does not parse, or the bundle is none.
        """
        return self._quotes.endorsements_from(self._read(evidence).quote, given)

    def _take(self, evidence: Evidence) -> _Read:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, found = self._latest.__dict__.pop("pair", (None, None))
        return found if latest is evidence and found is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> _Read:
        presented = read_tdx(evidence.body, self._options.min_version)
        opened = open_hcl_report(presented, ReportType.TDX)
        tdreport = parse_tdreport(opened.hcl.hardware_report)
        quote = parse_quote(presented.td_quote, allow_trailing_bytes=self._options.dcap.allow_trailing_bytes)
        return _Read(presented, opened, tdreport, quote, td_of(quote))
