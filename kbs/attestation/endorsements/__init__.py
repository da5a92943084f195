"""Endorsements: vendor roots and collateral, from the network, a cache or an offline store.

The Endorser's side of RFC 9334. Nothing here verifies evidence; nothing handed out is trusted by a verifier.
"""

from __future__ import annotations

from kbs.attestation.endorsements.service import EndorsementService
from kbs.attestation.endorsements.wiring import endorsement_service

__all__ = ["EndorsementService", "endorsement_service"]
