"""One report against pinned roots and a moment in time: all of verifiers 4.4 but the binding."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kbs.attestation.endorsements.amd import AmdProduct, CrlRef, VcekRef, VekKind, VlekRef, hwid_size
from kbs.attestation.endorsements.amd_roots import AmdRoots
from kbs.attestation.model import EndorsementNeed, Endorsements, Json
from kbs.attestation.sev.chain import ChainVerifier, EndorsedKey
from kbs.attestation.sev.checks import (
    check_chip_allowed,
    check_consistency,
    check_form,
    check_identity,
    check_signature,
    has_chip,
)
from kbs.attestation.sev.report import Report
from kbs.attestation.sev.revocation import RevocationChecker
from kbs.errors import ChainInvalid, EndorsementMissing, EvidenceMalformed


@dataclass(frozen=True, slots=True)
class Vek:
    """An endorsement key's certificate as found in the evidence, DER or PEM, with the label it came under."""

    kind: VekKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Endorsed:
    """What stands behind a report that passed. Only `ReportVerifier.verify` makes one."""

    vek: EndorsedKey
    is_revocation_checked: bool


class ReportVerifier:
    """Verifies reports and remembers certificates and lists that passed. Threads may share it.

    Trusted: the roots and provider names it is built with. Not trusted: reports, certificates and lists.
    """

    def __init__(
        self,
        roots: Mapping[AmdProduct, AmdRoots],
        *,
        vlek_csp_ids: frozenset[str] = frozenset(),
        allowed_chip_ids: frozenset[bytes] | None = None,
    ) -> None:
        """Choose who may sign.

        Args:
            vlek_csp_ids: cloud providers whose VLEK may, as in the certificate; none: VLEKs are refused.
            allowed_chip_ids: chips that may, 64 bytes each; None: all under the roots.
        """
        self._roots = dict(roots)
        self._vlek_csp_ids = vlek_csp_ids
        self._allowed_chip_ids = allowed_chip_ids
        self._chains = ChainVerifier()
        self._revocation = RevocationChecker()

    def needs(self, report: Report, vek: Vek | None) -> Sequence[EndorsementNeed]:
        """The product's revocation list, and the VEK where the evidence brings none.

        A VCEK is required: AMD serves it to everybody. A VLEK is not, since AMD serves it to its provider only;
        `verify` refuses without it.

        Raises:
            EvidenceRejected: a report that no key signed, or one that names no chip to ask a VCEK for.
        """
        kind = check_form(report)
        needs = [EndorsementNeed(CrlRef(report.product, kind).name, required=False)]
        if vek is None:
            needs.append(EndorsementNeed(_vek_name(report, kind), required=kind is VekKind.VCEK))
        return needs

    def verify(self, report: Report, vek: Vek | None, endorsements: Endorsements, at: datetime) -> Endorsed:
        """Check signature, chain, revocation and consistency as of `at`. Numbers: verifiers 4.4.

        Report data and host data are left to the caller (check 14), 12 and 15 to policies.

        Raises:
            EvidenceRejected: the subclass names the cause.
        """
        # 3.
        kind = check_form(report)
        # 4. Only pinned roots; what the evidence brings along is not an anchor.
        roots = self._roots.get(report.product)
        if roots is None:
            raise ChainInvalid("no roots are pinned for this AMD product")
        # 5, 6.
        key = self._chains.verify(_vek_bytes(report, vek, kind, endorsements), kind, roots, at)
        crl = endorsements.items.get(CrlRef(report.product, kind).name)
        if crl is not None:
            self._revocation.check(crl, roots, key, at)
        # 7.
        check_signature(report, key)
        # 8, 9.
        check_identity(report, key, self._vlek_csp_ids)
        if self._allowed_chip_ids is not None:
            check_chip_allowed(report, self._allowed_chip_ids)
        # 10, 11, 13. The rest of these are claims: a policy decides.
        check_consistency(report)
        return Endorsed(key, is_revocation_checked=crl is not None)

    def endorsements_from(self, report: Report, given: Mapping[str, Json]) -> Endorsements:
        """Collateral given by hand: `crl`, `vcek`, `vlek`, each one text, DER or PEM in base64. Others are ignored.

        Raises:
            EvidenceRejected: a report that no key signed.
            EvidenceMalformed: a member is not base64.
        """
        kind = check_form(report)
        items: dict[str, bytes] = {}
        if "crl" in given:
            items[CrlRef(report.product, kind).name] = _decode(given, "crl")
        if str(kind) in given:
            items[_vek_name(report, kind)] = _decode(given, str(kind))
        return Endorsements(items)


def _vek_name(report: Report, kind: VekKind) -> str:
    if kind is VekKind.VLEK:
        return VlekRef(report.product, report.reported_tcb).name
    if not has_chip(report):
        raise EndorsementMissing("SNP report names no chip whose VCEK could be had")
    return VcekRef(report.product, report.chip_id[: hwid_size(report.product)], report.reported_tcb).name


def _vek_bytes(report: Report, vek: Vek | None, kind: VekKind, endorsements: Endorsements) -> bytes:
    """The one candidate: the evidence's own, else the one that was fetched."""
    if vek is None:
        fetched = endorsements.items.get(_vek_name(report, kind))
        if fetched is None:
            raise EndorsementMissing("the certificate of the key that signed the SNP report is missing")
        return fetched
    if vek.kind is not kind:
        raise ChainInvalid("SNP report is signed with another kind of key than its certificate's")
    return vek.data


def _decode(given: Mapping[str, Json], name: str) -> bytes:
    try:
        return base64.b64decode(given[name], validate=True)
    except (binascii.Error, ValueError, TypeError) as err:
        raise EvidenceMalformed(f"given endorsement {name} is not base64") from err
