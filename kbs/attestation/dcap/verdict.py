"""What became of a quote: the verdict, and what its collateral says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kbs.attestation.dcap.evaluation import Evaluation
from kbs.attestation.dcap.pck import PckChain
from kbs.attestation.dcap.quote import Quote
from kbs.attestation.model import Json
from kbs.errors import EndorsementExpired


@dataclass(frozen=True, slots=True)
class Validity:
    """When something was issued and until when it is good."""

    name: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CollateralFacts:
    """What the collateral says of itself.

    validities: of every certificate, list and document; the three dates beside them sum them up.
    root_key_id: SHA-384 of the root's public key as an uncompressed point.
    """

    validities: tuple[Validity, ...]
    earliest_issue: datetime
    latest_issue: datetime
    earliest_expiration: datetime
    tcb_evaluation_number: int
    qe_evaluation_number: int
    root_key_id: bytes
    root_crl_number: int | None
    pck_crl_number: int | None

    def check(self, at: datetime) -> None:
        """Everything is valid at `at`.

        Raises:
            EndorsementExpired.
        """
        if self.latest_issue <= at <= self.earliest_expiration:
            return
        for each in self.validities:
            if not each.not_before <= at <= each.not_after:
                raise EndorsementExpired(f"{each.name} is outside its validity")


@dataclass(frozen=True, slots=True)
class QuoteVerdict:
    """A quote under the pinned root: signatures, chain, dates, quoting enclave and TCB checked.

    What the body says (debug, measurements, report data) is for the verifier of the TEE to judge.
    is_revocation_checked: both revocation lists were at hand; those at hand were always looked at.
    lasting_claims: what is told of platform and collateral whatever the time; shared by verdicts, so never changed.
    """

    quote: Quote
    pck: PckChain
    evaluation: Evaluation
    facts: CollateralFacts
    is_revocation_checked: bool
    lasting_claims: Mapping[str, Json]
