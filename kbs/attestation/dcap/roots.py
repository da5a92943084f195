"""Intel's root certificate: the pinned one, or one that a setting puts in its place."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509

from kbs.attestation.dcap.pck import key_of
from kbs.attestation.endorsements.pinned import pinned
from kbs.attestation.x509 import X509_ERRORS, is_issued_by, load_certificate
from kbs.errors import ChainInvalid, ConfigInvalid

_ANCHOR: Final = "trust_anchor_der"


def pinned_root() -> x509.Certificate:
    """The built-in "Intel SGX Root CA", valid to 2049.

    Chains with its first edition, valid to 2033, lead to it too: names and key are the same.

    Raises:
        ConfigInvalid: the file in the package differs from its pin.
    """
    return load_certificate(pinned("intel_sgx_root_ca"))


def root_from_anchors(anchors: Mapping[str, Any], tee: str) -> x509.Certificate:
    """A root given instead of the built-in one.

    Args:
        anchors: `trust_anchor_der`: one self-signed P-256 CA certificate, DER in base64; nothing else.
        tee: for the message.

    Raises:
        ConfigInvalid: anything else.
    """
    encoded = anchors.get(_ANCHOR)
    if anchors.keys() != {_ANCHOR} or not isinstance(encoded, str):
        raise ConfigInvalid(f"{tee} anchors: exactly {_ANCHOR}, a certificate in base64, is wanted")
    try:
        root = load_certificate(base64.b64decode(encoded, validate=True))
        key_of(root)
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_root = constraints.ca and is_issued_by(root, root)
    except (binascii.Error, *X509_ERRORS, x509.ExtensionNotFound, ChainInvalid) as err:
        raise ConfigInvalid(f"{tee} anchors: {_ANCHOR} is not a usable certificate in base64") from err
    if not is_root:
        raise ConfigInvalid(f"{tee} anchors: {_ANCHOR} is no self-signed CA certificate")
    return root
