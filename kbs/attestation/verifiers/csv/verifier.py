"""The CSV verifier: one report against the pinned root key and a handshake."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from kbs.attestation.endorsements.hygon import hsk_cek_name
from kbs.attestation.event_log.algorithms import SM3
from kbs.attestation.event_log.ccel import replay
from kbs.attestation.hygon.certificates import CaCertificate
from kbs.attestation.hygon.chain import ChainVerifier
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.csv.checks import check_binding, check_form, check_registers, check_signature
from kbs.attestation.verifiers.csv.claims import claims_of
from kbs.attestation.verifiers.csv.evidence import Presented, read
from kbs.attestation.verifiers.csv.options import CsvOptions
from kbs.errors import EndorsementMissing, EvidenceMalformed, EvidenceVersionUnsupported
from kbs.protocol.tee import Tee


class CsvVerifier:
    """Implements `kbs.attestation.model.Verifier` for `csv`. Threads may share it.

    Trusted: the root and options it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, root: CaCertificate, options: CsvOptions) -> None:
        self._options = options
        self._chains = ChainVerifier(root)
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """HSK and CEK by serial number: required where the evidence brings none.

        Raises:
            EvidenceRejected: the evidence does not parse.
        """
        presented = self._read(evidence)
        self._latest.pair = (evidence, presented)
        return [EndorsementNeed(hsk_cek_name(presented.serial), required=presented.hsk_cek is None)]

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,
        binding: Binding,
        at: datetime,  # noqa: ARG002 - the port's signature; Hygon's certificates have no dates
    ) -> Sequence[VerifiedClaims]:
        """Check signature, chain and binding. Numbers: verifiers 8.3.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 1, 2, 3.
        presented = self._take(evidence)
        report = presented.report
        # 4. What the vendor serves for this serial number goes before what the guest has brought.
        served = endorsements.items.get(hsk_cek_name(presented.serial))
        hsk_cek = presented.hsk_cek if served is None else served
        if hsk_cek is None:
            raise EndorsementMissing("HSK and CEK of this chip, which vouch for its PEK, are missing")
        pek = self._chains.verify_pek(presented.pek, self._chains.verify_cek(hsk_cek))
        # 5.
        check_signature(report, pek)
        # 6. The bits of the guest policy are claims: a policy decides.
        check_binding(report, binding)
        # 7.
        check_registers(report)
        claims = claims_of(report, binding)
        # No signature covers the serial number; that Hygon serves this chip's certificates for it vouches for it.
        claims["unverified_serial_number" if served is None else "serial_number"] = presented.serial
        claims |= _log_claims(presented)
        return [VerifiedClaims(Tee.CSV, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `hsk_cek`, HSK followed by CEK in base64. Others are ignored.

        Raises:
            EvidenceRejected: the evidence does not parse.
            EvidenceMalformed: a member is not base64.
        """
        if "hsk_cek" not in given:
            return Endorsements()
        try:
            pair = base64.b64decode(given["hsk_cek"], validate=True)
        except (binascii.Error, ValueError, TypeError) as err:
            raise EvidenceMalformed("given endorsement hsk_cek is not base64") from err
        return Endorsements({hsk_cek_name(self._read(evidence).serial): pair})

    def _take(self, evidence: Evidence) -> Presented:
        """What `needs` read from this very object a moment ago, or else read it now."""
        latest, presented = self._latest.__dict__.pop("pair", (None, None))
        return presented if latest is evidence and presented is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> Presented:
        presented = read(evidence.body)
        check_form(presented.report)
        if presented.report.version < self._options.min_report_version:
            raise EvidenceVersionUnsupported("CSV report of a version below the minimum")
        return presented


def _log_claims(presented: Presented) -> Mapping[str, Json]:
    """Check 7, second half. V1 has no registers that could cover a log: none is looked at, and no claim comes of it."""
    if presented.event_log is None or presented.report.extension is None:
        return {}
    return replay(presented.event_log, presented.report.extension.rtmrs[1:], algorithm=SM3).as_claims()
