"""The SNP verifier: one report against pinned roots, a handshake and a moment in time."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from kbs.attestation.endorsements.amd import AmdProduct, CrlRef, VcekRef, VekKind, VlekRef, hwid_size
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.model import Binding, EndorsementNeed, Endorsements, Evidence, Json, VerifiedClaims
from kbs.attestation.verifiers.snp.chain import ChainVerifier
from kbs.attestation.verifiers.snp.checks import (
    check_binding,
    check_consistency,
    check_form,
    check_identity,
    check_signature,
    has_chip,
)
from kbs.attestation.verifiers.snp.claims import claims_of
from kbs.attestation.verifiers.snp.evidence import Presented, read
from kbs.attestation.verifiers.snp.options import SnpOptions
from kbs.attestation.verifiers.snp.report import Report
from kbs.attestation.verifiers.snp.revocation import RevocationChecker
from kbs.errors import ChainInvalid, EndorsementMissing, EvidenceMalformed
from kbs.protocol.tee import Tee


class SnpVerifier:
    """Implements `kbs.attestation.model.Verifier` for `snp`. Threads may share it.

    Trusted: the roots and options it is built with. Not trusted: evidence and endorsements, both checked in full.
    """

    def __init__(self, roots: Mapping[AmdProduct, AmdRoots], options: SnpOptions) -> None:
        self._roots = dict(roots)
        self._options = options
        self._chains = ChainVerifier()
        self._revocation = RevocationChecker()
        self._latest = threading.local()

    def needs(self, evidence: Evidence) -> Sequence[EndorsementNeed]:
        """The product's revocation list, and the VEK where the evidence brings none.

        A VCEK is required: AMD serves it to everybody. A VLEK is not, since AMD serves it to its provider only;
        `verify` refuses without it.

        Raises:
            EvidenceRejected: the evidence does not parse, or names no chip to ask a VCEK for.
        """
        presented = self._read(evidence)
        self._latest.pair = (evidence, presented)
        report = presented.report
        kind = check_form(report)
        needs = [EndorsementNeed(CrlRef(report.product, kind).name, required=False)]
        if presented.vek is None:
            needs.append(EndorsementNeed(_vek_name(report, kind), required=kind is VekKind.VCEK))
        return needs

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
        # 3.
        kind = check_form(report)
        # 4. Only pinned roots; what the evidence brings along is not an anchor.
        roots = self._roots.get(report.product)
        if roots is None:
            raise ChainInvalid("no roots are pinned for this AMD product")
        # 5, 6.
        vek = self._chains.verify(_vek_bytes(presented, kind, endorsements), kind, roots, at)
        crl = endorsements.items.get(CrlRef(report.product, kind).name)
        if crl is not None:
            self._revocation.check(crl, roots, vek, at)
        # 7.
        check_signature(report, vek)
        # 8, 9.
        check_identity(report, vek, self._options.vlek_csp_ids)
        # 10, 11, 13. The rest of these, 12 and 15 are claims: a policy decides.
        check_consistency(report)
        # 14.
        check_binding(report, binding)
        claims = claims_of(report, vek, binding, self._revocation_claims(is_checked=crl is not None))
        return [VerifiedClaims(Tee.SNP, "cpu", claims)]

    def endorsements_from(self, evidence: Evidence, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `crl`, `vcek`, `vlek`, each one text, DER or PEM in base64. Others are ignored.

        Raises:
            EvidenceRejected: the evidence does not parse.
            EvidenceMalformed: a member is not base64.
        """
        report = self._read(evidence).report
        kind = check_form(report)
        items: dict[str, bytes] = {}
        if "crl" in given:
            items[CrlRef(report.product, kind).name] = _decode(given, "crl")
        if str(kind) in given:
            items[_vek_name(report, kind)] = _decode(given, str(kind))
        return Endorsements(items)

    def _take(self, evidence: Evidence) -> Presented:
        """What `needs` read from this very object a moment ago, or else read it now: reading takes 100 µs."""
        latest, presented = self._latest.__dict__.pop("pair", (None, None))
        return presented if latest is evidence and presented is not None else self._read(evidence)

    def _read(self, evidence: Evidence) -> Presented:
        return read(evidence.body, self._options.v2_product, allow_trailing_bytes=self._options.allow_trailing_bytes)

    def _revocation_claims(self, *, is_checked: bool) -> dict[str, Json]:
        if is_checked:
            return {"revocation": "checked"}
        if self._options.waive_revocation:
            return {"revocation": "not_checked", "revocation_waived": True}
        return {"revocation": "not_checked"}


def _vek_name(report: Report, kind: VekKind) -> str:
    if kind is VekKind.VLEK:
        return VlekRef(report.product, report.reported_tcb).name
    if not has_chip(report):
        raise EndorsementMissing("SNP report names no chip whose VCEK could be had")
    return VcekRef(report.product, report.chip_id[: hwid_size(report.product)], report.reported_tcb).name


def _vek_bytes(presented: Presented, kind: VekKind, endorsements: Endorsements) -> bytes:
    """The one candidate: the evidence's own, else the one that was fetched."""
    if presented.vek is None:
        fetched = endorsements.items.get(_vek_name(presented.report, kind))
        if fetched is None:
            raise EndorsementMissing("the certificate of the key that signed the SNP report is missing")
        return fetched
    if presented.vek.kind is not kind:
        raise ChainInvalid("SNP report is signed with another kind of key than its certificate's")
    return presented.vek.data


def _decode(given: Mapping[str, Json], name: str) -> bytes:
    try:
        return base64.b64decode(given[name], validate=True)
    except (binascii.Error, ValueError, TypeError) as err:
        raise EvidenceMalformed(f"given endorsement {name} is not base64") from err
