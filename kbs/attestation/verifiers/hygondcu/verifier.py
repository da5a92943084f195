"""The DCU verifier: each device's report against the pinned root key and a handshake."""

from __future__ import annotations

import base64
import binascii
import hmac
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from kbs.attestation.endorsements.hygon import hsk_cek_name
from kbs.attestation.hygon.certificates import CaCertificate
from kbs.attestation.hygon.chain import ChainVerifier
from kbs.attestation.hygon.sm2 import is_signed_by
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.hygondcu.report import Report, read
from kbs.errors import BindingMismatch, EndorsementMissing, EvidenceMalformed, SignatureInvalid
from kbs.protocol.tee import Tee

_USER_DATA_SIZE: Final = 64


class DcuVerifier:
    """Implements `kbs.attestation.model.Verifier` for `hygondcu`. Threads may share it.

    Trusted: the root it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, root: CaCertificate) -> None:
        self._chains = ChainVerifier(root)
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """HSK and CEK by chip id, for each report.

        Raises:
            EvidenceRejected: the evidence does not parse.
        """
        reports = read(evidence.body)
        self._latest.pair = (evidence, reports)
        return [EndorsementNeed(hsk_cek_name(report.chip), required=True) for report in reports]

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,
        binding: Binding,
        at: datetime,  # noqa: ARG002 - the port's signature; Hygon's certificates have no dates
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain and binding of every report; one claim set for each, in their order.

        Raises:
            EvidenceRejected: the subclass names the cause. One bad report refuses all.
        """
        reports = self._take(evidence)
        for report in reports:
            _check_binding(report, binding)  # first: it costs nothing, a signature does
        for report in reports:
            hsk_cek = endorsements.items.get(hsk_cek_name(report.chip))
            if hsk_cek is None:
                raise EndorsementMissing("HSK and CEK of a DCU, which vouch for its report, are missing")
            cek = self._chains.verify_cek(hsk_cek)
            if not is_signed_by(report.signed, report.signature, cek.key):
                raise SignatureInvalid("signature of the DCU report does not verify")
        return [VerifiedClaims(Tee.HYGON_DCU, "dcu", _claims_of(report, binding)) for report in reports]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `hsk_cek`, HSK followed by CEK in base64, for all chips of the evidence, or an
        object of such texts by chip id. Others are ignored.

        Raises:
            EvidenceRejected: the evidence does not parse.
            EvidenceMalformed: a member is not base64.
        """
        if "hsk_cek" not in given:
            return Endorsements()
        pairs = given["hsk_cek"]
        items = {}
        for report in read(evidence.body):
            text = pairs.get(report.chip) if isinstance(pairs, dict) else pairs
            if text is not None:
                items[hsk_cek_name(report.chip)] = _decode(text)
        return Endorsements(items)

    def _take(self, evidence: Evidence) -> tuple[Report, ...]:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, reports = self._latest.__dict__.pop("pair", (None, None))
        return reports if latest is evidence and reports is not None else read(evidence.body)


def _check_binding(report: Report, binding: Binding) -> None:
    """User data is the digest and zeros up to 64 bytes; all 64 are compared."""
    if binding.report_data is None:
        return
    expected = binding.report_data.ljust(_USER_DATA_SIZE, b"\0")
    if not binding.report_data or not hmac.compare_digest(report.user_data, expected):
        raise BindingMismatch("user data of the DCU report does not bind this challenge and key")


def _claims_of(report: Report, binding: Binding) -> dict[str, Json]:
    """Names and types: attestation-service 6.14, and our own. Byte fields are lower-case hex."""
    return {
        "body": {
            "version": report.version,
            "chip_id": report.chip_id.hex(),
            "user_data": report.user_data.hex(),
            "measure": report.measure.hex(),
            "reserved": report.reserved.hex(),
            "sig_usage": f"{report.sig_usage:x}",
            "sig_algo": f"{report.sig_algo:x}",
        },
        "chip": report.chip,
        "report_data": report.user_data.hex(),
        "binding": "not_checked" if binding.report_data is None else "checked",
        "revocation": "not_applicable",
    }


def _decode(text: Json) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as err:
        raise EvidenceMalformed("given endorsement hsk_cek is not base64") from err
