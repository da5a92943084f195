"""Intel DCAP: what the evidence of TDs and SGX enclaves has in common.

`quote` reads bytes, `pck` and `collateral` establish trust, `levels` finds TCB levels and `evaluation` their verdict,
`verification` puts them together, `claims` and `td` tell. Knows neither evidence JSON nor handshakes: what report data
and init data must be is the business of the verifiers that use this.
"""

from __future__ import annotations

from kbs.attestation.dcap.claims import collateral_claims
from kbs.attestation.dcap.quote import EnclaveReport, Quote, TdReport, parse_quote
from kbs.attestation.dcap.roots import pinned_root, root_from_anchors
from kbs.attestation.dcap.td import check_td, td_claims, td_of
from kbs.attestation.dcap.verdict import QuoteVerdict
from kbs.attestation.dcap.verification import QuoteOptions, QuoteVerifier

__all__ = [
    "EnclaveReport",
    "Quote",
    "QuoteOptions",
    "QuoteVerdict",
    "QuoteVerifier",
    "TdReport",
    "check_td",
    "collateral_claims",
    "parse_quote",
    "pinned_root",
    "root_from_anchors",
    "td_claims",
    "td_of",
]
