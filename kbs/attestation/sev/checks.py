"""What a report must say, and how it must agree with its certificate and itself.

Numbers are those of verifiers 4.4. What a policy may weigh (debug, VMPL 1 to 3, provisional firmware, minimum TCB) is
not refused here but told in the claims.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from kbs.attestation.endorsements.amd import VekKind, hwid_size
from kbs.attestation.sev.chain import EndorsedKey
from kbs.attestation.sev.report import HOST_VMPL, Report, SigningKey
from kbs.errors import (
    ChipNotAllowed,
    EvidenceMalformed,
    EvidenceVersionUnsupported,
    SignatureInvalid,
    SignerNotTrusted,
    TcbMismatch,
)

_ECDSA_P384_SHA384: Final = 1
_POLICY_MUST_BE_ONE: Final = 1 << 17
_POLICY_KNOWN_BITS: Final = 26
_MAX_VMPL: Final = 3
_ECDSA: Final = ec.ECDSA(SHA384())


def check_form(report: Report) -> VekKind:
    """Check 3, and which kind of key the report says it is signed with.

    Raises:
        EvidenceVersionUnsupported: a signature algorithm that is not defined.
        EvidenceMalformed: policy bit 17 clear, or a reserved one set.
        SignatureInvalid: the report says that it is not signed.
    """
    if report.signature_algorithm != _ECDSA_P384_SHA384:
        raise EvidenceVersionUnsupported("SNP report is not signed with ECDSA P-384")
    if not report.policy & _POLICY_MUST_BE_ONE or report.policy >> _POLICY_KNOWN_BITS:
        raise EvidenceMalformed("SNP guest policy has a reserved bit set, or bit 17 clear")
    if report.key_info.signing_key is SigningKey.NONE:
        raise SignatureInvalid("SNP report is not signed")
    return VekKind.VCEK if report.key_info.signing_key is SigningKey.VCEK else VekKind.VLEK


def check_signature(report: Report, vek: EndorsedKey) -> None:
    """Check 7: over the first 0x2A0 bytes, with the VEK.

    Raises:
        SignatureInvalid.
    """
    try:
        vek.public_key.verify(encode_dss_signature(report.r, report.s), report.signed, _ECDSA)
    except InvalidSignature as err:
        raise SignatureInvalid("signature of the SNP report does not verify") from err


def check_identity(report: Report, vek: EndorsedKey, csp_ids: Collection[str]) -> None:
    """Checks 8 and 9: TCB version, chip, and cloud provider in report and certificate.

    Raises:
        TcbMismatch: they disagree, or the chip is masked where it must not be.
        SignerNotTrusted: a VLEK of a provider that no setting allows.
    """
    # 8.
    if report.reported_tcb != vek.tcb:
        raise TcbMismatch("TCB of the SNP report differs from its certificate's")
    # 9.
    if vek.kind is VekKind.VLEK:
        if vek.csp_id not in csp_ids:
            raise SignerNotTrusted("SNP report is signed with a VLEK of a provider that is not allowed")
        if any(report.chip_id):
            raise TcbMismatch("SNP report signed with a VLEK names a chip")
        return
    if report.key_info.mask_chip_key:
        raise TcbMismatch("SNP report masks the chip key that should have signed it")
    expected = (vek.hwid or b"").ljust(len(report.chip_id), b"\0")  # Turin: 8 bytes, then zeros
    if not any(report.chip_id) or not hmac.compare_digest(report.chip_id, expected):
        raise TcbMismatch("chip of the SNP report differs from its certificate's")


def check_chip_allowed(report: Report, allowed: Collection[bytes]) -> None:
    """Whether an operator allows this very chip. A report that names none, as under a VLEK, is of no allowed one.

    Args:
        report: `check_identity` was asked, so its chip id is the certificate's.
        allowed: chip ids, 64 bytes each.

    Raises:
        ChipNotAllowed.
    """
    if not any(report.chip_id) or report.chip_id not in allowed:
        raise ChipNotAllowed("SNP report is of a chip that is not on the list of allowed ones")


def check_consistency(report: Report) -> None:
    """Checks 10, 11 and 13, as far as no policy is asked.

    Raises:
        TcbMismatch: TCB or firmware versions that cannot be at the same time.
        SignerNotTrusted: the host asked for the report, not the guest.
        EvidenceMalformed: a VMPL that does not exist, or an author key that is there and not there.
    """
    # 10.
    if not report.reported_tcb.is_at_most(report.current_tcb) or not report.committed_tcb.is_at_most(
        report.current_tcb
    ):
        raise TcbMismatch("TCB versions of the SNP report contradict each other")
    if not report.committed_firmware.is_at_most(report.current_firmware):
        raise TcbMismatch("firmware of the SNP report is older than what it is committed to")
    # 11.
    if report.vmpl == HOST_VMPL:
        raise SignerNotTrusted("SNP report was requested by the host")
    if report.vmpl > _MAX_VMPL:
        raise EvidenceMalformed("SNP report of a VMPL that does not exist")
    # 13.
    if report.key_info.author_key_enabled != any(report.author_key_digest):
        raise EvidenceMalformed("author key of the SNP report contradicts its key info")


def has_chip(report: Report) -> bool:
    """Whether the report names its chip, in the form that a VCEK can be asked for by."""
    size = hwid_size(report.product)
    return any(report.chip_id) and not any(report.chip_id[size:])
