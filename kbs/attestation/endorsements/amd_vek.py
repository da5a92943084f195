"""What AMD writes into the certificates of endorsement keys: product, chip and TCB version, by its own extensions.

Read by the verifier, which judges by it, and by endorsers, which compare an answer with what they asked for.

Source: AMD 57230 (VCEK certificate and KDS interface), custom extensions.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from kbs.attestation.endorsements.amd import AmdProduct, TcbVersion, VcekRef, hwid_size
from kbs.errors import ChainInvalid

ARC: Final = "1.3.6.1.4.1.3704.1."
_BOOTLOADER, _TEE, _SNP, _MICROCODE, _FMC = (ARC + part for part in ("3.1", "3.2", "3.3", "3.8", "3.9"))
_HWID: Final = ARC + "4"


def read_extensions(certificate: x509.Certificate) -> dict[str, bytes]:
    """AMD's own extensions by OID: the octets in them, DER but for hardware ids.

    Raises:
        ChainInvalid: a critical one that is not AMD's, or a CA certificate. X509_ERRORS: one does not parse.
    """
    found: dict[str, bytes] = {}
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ChainInvalid("endorsement key certificate is a CA certificate")
        if isinstance(value, x509.UnrecognizedExtension) and extension.oid.dotted_string.startswith(ARC):
            found[extension.oid.dotted_string] = value.value
        elif extension.critical and not isinstance(value, x509.BasicConstraints | x509.KeyUsage):
            raise ChainInvalid("endorsement key certificate has an unknown critical extension")
    return found


def read_tcb(extensions: dict[str, bytes], product: AmdProduct) -> TcbVersion:
    """The TCB version that a key is for.

    Raises:
        ChainInvalid: a component is missing, out of range, or of another product. X509_ERRORS: one does not parse.
    """
    bootloader, tee, snp, microcode = (_component(extensions, oid) for oid in (_BOOTLOADER, _TEE, _SNP, _MICROCODE))
    if product is AmdProduct.TURIN:
        return TcbVersion(bootloader, tee, snp, microcode, _component(extensions, _FMC))
    if _FMC in extensions:
        raise ChainInvalid("endorsement key certificate has another product's TCB layout")
    return TcbVersion(bootloader, tee, snp, microcode)


def read_hwid(extensions: dict[str, bytes], product: AmdProduct) -> bytes:
    """The chip that a VCEK is of: 64 octets, from Turin on 8; written as they are, or as an OCTET STRING of them.

    Raises:
        ChainInvalid: another length. X509_ERRORS: it does not parse.
    """
    value, size = extensions.get(_HWID, b""), hwid_size(product)
    if len(value) != size:
        value = asn1.decode_der(bytes, value)
    if len(value) != size:
        raise ChainInvalid("endorsement key certificate has a hardware id of the wrong length")
    return value


def is_vcek_of(certificate: x509.Certificate, ref: VcekRef) -> bool:
    """Whether a certificate says that it is that of this chip at this TCB version; no signature is checked.

    Raises:
        ChainInvalid, X509_ERRORS: it does not say either in a readable way.
    """
    extensions = read_extensions(certificate)
    return (read_hwid(extensions, ref.product), read_tcb(extensions, ref.product)) == (ref.hwid, ref.tcb)


def _component(extensions: dict[str, bytes], oid: str) -> int:
    value = read_integer(extensions, oid)
    if not 0 <= value <= 0xFF:
        raise ChainInvalid("endorsement key certificate has a TCB component out of range")
    return value


def read_integer(extensions: dict[str, bytes], oid: str) -> int:
    """A DER INTEGER: values above 127 take two bytes, so its third byte is not its value.

    Raises:
        ChainInvalid: it is missing. X509_ERRORS: it does not parse.
    """
    return asn1.decode_der(int, _extension(extensions, oid))


def read_text(extensions: dict[str, bytes], oid: str) -> str:
    """A DER IA5String. Raises as `read_integer`."""
    return asn1.decode_der(asn1.IA5String, _extension(extensions, oid)).as_str()


def _extension(extensions: dict[str, bytes], oid: str) -> bytes:
    if oid not in extensions:
        raise ChainInvalid("endorsement key certificate lacks an AMD extension")
    return extensions[oid]
