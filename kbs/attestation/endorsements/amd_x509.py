"""AMD's signatures on certificates and revocation lists.

AMD signs with RSASSA-PSS and fixed parameters, and nothing else is taken. Nothing here decides about time or trust.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509.oid import SignatureAlgorithmOID

from kbs.attestation.x509 import X509_ERRORS, issuer_name

_PSS = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)  # AMD 57230: RSASSA-PSS, SHA-384, salt of 48 bytes


def is_signed_by(signed: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether the names fit and the signature is the issuer's, with AMD's parameters and no others."""
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or signed.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return False
    try:
        if issuer_name(signed) != issuer.subject:
            return False
        # The library goes by the parameters that the certificate names and compares their two copies, of which only
        # one is signed; the second check pins them.
        if isinstance(signed, x509.Certificate):
            signed.verify_directly_issued_by(issuer)
            key.verify(signed.signature, signed.tbs_certificate_bytes, _PSS, SHA384())
            return True
        key.verify(signed.signature, signed.tbs_certlist_bytes, _PSS, SHA384())
        return signed.is_signature_valid(key)
    except (InvalidSignature, *X509_ERRORS):
        return False
