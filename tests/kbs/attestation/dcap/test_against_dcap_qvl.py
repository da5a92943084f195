"""The same quotes and bundles through `dcap-qvl`, which shares no code with us: one verdict, but for what is listed.

What it answers is no authority; where it is laxer or stricter, the reason stands here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.dcap import QuoteOptions, QuoteVerifier, parse_quote, pinned_root, root_from_anchors
from kbs.errors import EvidenceRejected
from tests.kbs.attestation.dcap.quotes import TIMES, VECTORS, collateral, quote, time_of

CASES = sorted([*(VECTORS / "tdx/synthetic").glob("*.json"), *(VECTORS / "sgx/synthetic").glob("*.json")])
LAXER = {
    "pceid_mismatch": "it does not compare the PCEID",
    "tcb_signed_by_pck": "any chain to the root may sign TCB info",
    "trailing": "bytes behind the quote are not looked at",
}
STRICTER = {  # what we tell in claims, or what the verifier of the TEE refuses after this core
    "debug_td": "debug",
    "debug_enclave": "debug",
    "servicetd": "service TD",
    "tdx/tdx_quote_4": "debug",
    "tdx/tdx_quote_5": "service TD",
    "tdx/oe_v4_50806f": "SEPT_VE_DISABLE",
    "sgx/occlum_quote": "debug",
}


def theirs(raw: bytes, bundle: Mapping[str, Any], root: bytes, at: datetime) -> tuple[str, list[str]] | None:
    given = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(dict(bundle)))
    try:
        report = dcap_qvl.verify_with_root_ca(raw, given, root, int(at.timestamp()))
    except ValueError:
        return None
    return report.status, list(report.advisory_ids)


def ours(raw: bytes, bundle: Mapping[str, Any], quotes: QuoteVerifier, at: datetime) -> tuple[str, list[str]] | None:
    try:
        parsed = parse_quote(raw, allow_trailing_bytes=True)
        given = quotes.endorsements_from(parsed, bundle)
        verdict = quotes.verify(parsed, given, QuoteOptions(), at).evaluation.verdict
    except EvidenceRejected:
        return None
    return str(verdict.status), list(verdict.advisories)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_published_cases(path: Path) -> None:
    case = json.loads(path.read_text())
    raw, bundle = base64.b64decode(case["evidence"]["quote"]), case["endorsements"]["collateral"]
    at = datetime.fromisoformat(case["now"])
    root = base64.b64decode(case["anchors"]["trust_anchor_der"])
    mine = ours(raw, bundle, QuoteVerifier(root_from_anchors(case["anchors"], case["tee"])), at)
    other = theirs(raw, bundle, root, at)
    if path.stem in LAXER:
        assert mine is None
        assert other is not None
    elif path.stem in STRICTER:
        assert mine is not None
        assert other is None
    else:
        assert mine == other


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("with_collateral_of", TIMES)
def test_real_quotes(name: str, with_collateral_of: str) -> None:
    """Each with its own collateral, and with that of another platform or month."""
    at = time_of(with_collateral_of)
    raw, bundle = quote(name), collateral(with_collateral_of)
    mine = ours(raw, bundle, QuoteVerifier(pinned_root()), at)
    other = theirs(raw, bundle, pinned_root().public_bytes(Encoding.DER), at)
    if name in STRICTER:
        assert other is None
    else:
        assert mine == other
    if name == with_collateral_of:
        assert (mine is None) is (name in ("tdx/tdx_quote_5", "tdx/azure_v5_no_tcb_level"))
