"""The signatures of a quote: PCK key → report of the quoting enclave → attestation key → quote.

Source: Intel quote format; verifiers 2.8 steps 7 to 9.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from kbs.attestation.dcap.quote import EnclaveReport, Quote, parse_enclave_report
from kbs.errors import SignatureInvalid

_ECDSA: Final = ec.ECDSA(SHA256())


def certified_key(quote: Quote, pck_key: ec.EllipticCurvePublicKey) -> tuple[ec.EllipticCurvePublicKey, EnclaveReport]:
    """The attestation key, and the quoting enclave that vouches for it: whose that is, is not looked at here.

    Args:
        pck_key: trusted, as part of a verified path.

    Raises:
        SignatureInvalid: the platform did not sign the enclave's report, or it is about another key.
        EvidenceMalformed: a reserved byte of the report is set.
    """
    # 7.
    verify_p256(pck_key, quote.qe_signature, quote.qe_report, "report of the quoting enclave")
    # 8. All 64 bytes: what stands behind the digest must be zero.
    report = parse_enclave_report(quote.qe_report)
    expected = sha256(quote.attestation_key + quote.qe_auth_data).digest().ljust(64, b"\0")
    if not compare_digest(report.report_data, expected):
        raise SignatureInvalid("report of the quoting enclave does not vouch for the attestation key")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key), report
    except ValueError as err:
        raise SignatureInvalid("attestation key of the quote is no point on P-256") from err


def check_quote_signature(quote: Quote, key: ec.EllipticCurvePublicKey) -> None:
    """Step 9. `key`: from `certified_key`.

    Raises:
        SignatureInvalid.
    """
    verify_p256(key, quote.signature, quote.signed, "quote")


def verify_p256(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, subject: str) -> None:
    """ECDSA with SHA-256. `signature`: r ‖ s, 32 bytes each, big-endian.

    Raises:
        SignatureInvalid.
    """
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, _ECDSA)
    except InvalidSignature as err:
        raise SignatureInvalid(f"signature of the {subject} does not verify") from err
