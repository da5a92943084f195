"""The SGX verifier: one quote against the pinned root, a handshake and a moment in time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509

from kbs.attestation.dcap import EnclaveReport, Quote, QuoteVerifier, collateral_claims, parse_quote
from kbs.attestation.dcap.binding import check_binding
from kbs.attestation.dcap.evidence import quote_bytes
from kbs.attestation.dcap.options import DcapOptions
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.sgx.report import check_enclave, enclave_claims, enclave_of
from kbs.protocol.tee import Tee


class SgxVerifier:
    """Implements `kbs.attestation.model.Verifier` for `sgx`. Threads may share it.

    Trusted: the root and options it is built with. Not trusted: evidence and endorsements, both checked in full.

    Evidence: `quote`, base64; other members are ignored. Or the raw quote as bytes.
    """

    def __init__(self, root: x509.Certificate, options: DcapOptions) -> None:
        self._quotes = QuoteVerifier(root)
        self._options = options
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """TCB info and QE identity, both required, and both revocation lists.

        Raises:
            EvidenceRejected: the evidence does not parse.
        """
        quote, body = self._read(evidence)
        self._latest.found = (evidence, quote, body)
        return self._quotes.needs(quote)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain, TCB and binding as of `at`. Numbers: verifiers 2.8.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 2.
        quote, body = self._take(evidence)
        # 3 to 18.
        verdict = self._quotes.verify(quote, endorsements, self._options.quote, at)
        # 19.
        check_enclave(body)
        # 20.
        check_binding(body.report_data, body.config_id, binding)
        claims = {
            **enclave_claims(quote, body),
            **collateral_claims(verdict, at, waive_revocation=self._options.waive_revocation),
            "binding": "not_checked" if binding.report_data is None else "checked",
        }
        return [VerifiedClaims(Tee.SGX, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: see `QuoteVerifier.endorsements_from`.

        Raises:
            EvidenceRejected: the evidence does not parse, or the bundle is none.
        """
        quote, _ = self._read(evidence)
        return self._quotes.endorsements_from(quote, given)

    def _take(self, evidence: Evidence) -> tuple[Quote, EnclaveReport]:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, *found = self._latest.__dict__.pop("found", (None,))
        if latest is not evidence:
            return self._read(evidence)
        quote, body = found
        return quote, body

    def _read(self, evidence: Evidence) -> tuple[Quote, EnclaveReport]:
        quote = parse_quote(quote_bytes(evidence.body), allow_trailing_bytes=self._options.allow_trailing_bytes)
        return quote, enclave_of(quote)
