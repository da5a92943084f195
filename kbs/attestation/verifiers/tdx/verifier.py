"""The TDX verifier: one quote and its event log against the pinned root, a handshake and a moment in time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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
from kbs.attestation.dcap.binding import check_binding
from kbs.attestation.dcap.evidence import base64_member, quote_bytes
from kbs.attestation.event_log import ccel
from kbs.attestation.event_log.model import MAX_SIZE
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.tdx.options import TdxOptions
from kbs.errors import EventLogMismatch
from kbs.protocol.tee import Tee

_MAX_LOG_TEXT: Final = (MAX_SIZE + 2) // 3 * 4


@dataclass(frozen=True, slots=True)
class _Presented:
    """Evidence, parsed. Nothing verified."""

    quote: Quote
    body: TdReport
    log: bytes | None


class TdxVerifier:
    """Implements `kbs.attestation.model.Verifier` for `tdx`. Threads may share it.

    Trusted: the root and options it is built with. Not trusted: evidence and endorsements, both checked in full.

    Evidence: `quote`, base64; `cc_eventlog`, base64 of the CCEL, or null, empty or absent. Other members are ignored.
    Or the raw quote as bytes.
    """

    def __init__(self, root: x509.Certificate, options: TdxOptions) -> None:
        self._quotes = QuoteVerifier(root)
        self._options = options
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """TCB info and QE identity, both required, and both revocation lists.

        Raises:
            EvidenceRejected: the evidence does not parse.
        """
        presented = self._read(evidence)
        self._latest.pair = (evidence, presented)
        return self._quotes.needs(presented.quote)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, binding: Binding, at: datetime
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain, TCB, binding and event log as of `at`. Numbers: verifiers 2.8.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 2.
        presented = self._take(evidence)
        # 3 to 18.
        verdict = self._quotes.verify(presented.quote, endorsements, self._options.dcap.quote, at)
        # 19.
        check_td(presented.body, self._options.service_tds)
        # 20.
        check_binding(presented.body.report_data, presented.body.mr_config_id, binding)
        claims = {
            **td_claims(presented.quote, presented.body),
            **collateral_claims(verdict, at, waive_revocation=self._options.dcap.waive_revocation),
            # 21.
            **self._log_claims(presented),
            "binding": "not_checked" if binding.report_data is None else "checked",
        }
        if self._options.allow_sept_ve and claims["td_attributes"]["septve_disable"] is False:
            claims["septve_waived"] = True
        return [VerifiedClaims(Tee.TDX, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: see `QuoteVerifier.endorsements_from`.

        Raises:
            EvidenceRejected: the evidence does not parse, or the bundle is none.
        """
        return self._quotes.endorsements_from(self._read(evidence).quote, given)

    def _log_claims(self, presented: _Presented) -> Mapping[str, Json]:
        if presented.log is None:
            if self._options.require_event_log:
                raise EventLogMismatch("evidence has no event log")
            return {}
        return ccel.replay(
            presented.log,
            presented.body.rtmrs,
            may_be_unlogged=self._options.unlogged_registers,
            allow_repeated_separators=self._options.allow_repeated_separators,
        ).as_claims()

    def _take(self, evidence: Evidence) -> _Presented:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, presented = self._latest.__dict__.pop("pair", (None, None))
        return presented if latest is evidence and presented is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> _Presented:
        body: Any = evidence.body
        quote = parse_quote(quote_bytes(body), allow_trailing_bytes=self._options.dcap.allow_trailing_bytes)
        log = None
        if isinstance(body, Mapping) and body.get("cc_eventlog") not in (None, ""):
            log = base64_member(body, "cc_eventlog", _MAX_LOG_TEXT)
        return _Presented(quote, td_of(quote), log)
