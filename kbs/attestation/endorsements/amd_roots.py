"""AMD's root and intermediate certificates: the pinned ones, or those that a setting puts in their place."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.attestation.endorsements.amd import AmdProduct, VekKind
from kbs.attestation.endorsements.amd_x509 import is_signed_by
from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.x509 import X509_ERRORS, common_name, load_certificate
from kbs.errors import ConfigInvalid

_MIN_KEY_BITS: Final = 2048  # the real ones have 4096; test roots may be smaller to be quick
_NAMES: Final = {"ark": "ARK-{}", "ask": "SEV-{}", "asvk": "SEV-VLEK-{}"}  # subject CN by role, AMD 57230
_PINNED: Final = (AmdProduct.MILAN, AmdProduct.GENOA, AmdProduct.TURIN)


@dataclass(frozen=True, slots=True)
class AmdRoots:
    """The trusted chain of one product. Signatures among these are checked, dates are not."""

    product: AmdProduct
    ark: x509.Certificate
    ask: x509.Certificate
    asvk: x509.Certificate | None

    def issuer_of(self, kind: VekKind) -> x509.Certificate | None:
        """ASK for a VCEK, ASVK for a VLEK; None when no ASVK is known."""
        return self.ask if kind is VekKind.VCEK else self.asvk


def pinned_roots() -> dict[AmdProduct, AmdRoots]:
    """The built-in roots.

    Raises:
        ConfigInvalid: a file in the package differs from its pin.
    """
    return {
        product: _checked(product, {role: load_certificate(pinned(f"amd_{role}_{product.lower()}")) for role in _NAMES})
        for product in _PINNED
    }


def roots_from_anchors(anchors: Mapping[str, Any]) -> dict[AmdProduct, AmdRoots]:
    """Roots given instead of the built-in ones.

    Args:
        anchors: `ark`, `ask` and optionally `asvk`: certificates of one product, DER in base64. The product is the one
            that the subject of the ARK names.

    Raises:
        ConfigInvalid: a member missing, unknown or unreadable, or certificates that are no chain.
    """
    if unknown := set(anchors) - set(_NAMES):
        raise ConfigInvalid(f"snp anchors: unknown {sorted(unknown)}")
    if missing := {"ark", "ask"} - set(anchors):
        raise ConfigInvalid(f"snp anchors: missing {sorted(missing)}")
    certificates = {role: _decode(role, value) for role, value in anchors.items()}
    subject = common_name(certificates["ark"].subject)
    for product in _PINNED:
        if subject == _NAMES["ark"].format(product):
            return {product: _checked(product, certificates)}
    raise ConfigInvalid("snp anchors: the ARK's subject names no known product")


def _decode(role: str, value: object) -> x509.Certificate:
    if not isinstance(value, str):
        raise ConfigInvalid(f"snp anchors: {role} is not text")
    try:
        return load_certificate(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError) as err:
        raise ConfigInvalid(f"snp anchors: {role} is not a certificate in base64") from err


def _checked(product: AmdProduct, certificates: Mapping[str, x509.Certificate]) -> AmdRoots:
    roots = AmdRoots(product, certificates["ark"], certificates["ask"], certificates.get("asvk"))
    for role, certificate in certificates.items():
        if common_name(certificate.subject) != _NAMES[role].format(product) or not _may_issue(certificate):
            raise ConfigInvalid(f"snp anchors: {role} is not the {product} certificate of that role")
        if not is_signed_by(certificate, roots.ark):
            raise ConfigInvalid(f"snp anchors: {role} is not signed by the ARK")
    return roots


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        key = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (*X509_ERRORS, x509.ExtensionNotFound):
        return False
    strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_KEY_BITS
    return strong and constraints.ca and usage.key_cert_sign
