"""From a document's certificate to AWS's root.

The root in the document's own bundle is no anchor; the pinned one is. AWS has this chain verified without revocation
lists: the certificate that signs a document lives about three hours.

Source: aws-nitro-enclaves-nsm-api, attestation process, section 3.2.3 (certificates).
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.attestation.verifiers.nitro.document import Document
from kbs.attestation.x509 import X509_ERRORS, CertificatePath, PathVerifier, load_certificate
from kbs.errors import ChainInvalid, ConfigInvalid

_CACHE_SIZE: Final = 1024  # enclaves and instances; about 10 KiB each


def root_from_anchors(anchors: Mapping[str, Any]) -> x509.Certificate:
    """The root given instead of the built-in one: `root`, a certificate, DER in base64.

    Raises:
        ConfigInvalid: missing, unreadable, or not alone.
    """
    if set(anchors) != {"root"} or not isinstance(anchors["root"], str):
        raise ConfigInvalid("nitro anchors: one member, root, a certificate in base64")
    try:
        return load_certificate(base64.b64decode(anchors["root"], validate=True))
    except (binascii.Error, ValueError) as err:
        raise ConfigInvalid("nitro anchors: root is not a certificate in base64") from err


class ChainVerifier:
    """Finds the key that signed a document, and remembers chains that were right. Threads may share it."""

    def __init__(self, root: x509.Certificate) -> None:
        self._paths = PathVerifier([root])
        self._known: OrderedDict[tuple[bytes, ...], CertificatePath] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, document: Document, at: datetime) -> tuple[CertificatePath, ec.EllipticCurvePublicKey]:
        """Check certificate → bundle → root, and all dates at `at`. `remember` it once the document is genuine.

        Raises:
            ChainInvalid, EndorsementExpired.
        """
        with self._lock:
            path = self._known.get((document.certificate, *document.bundle))
        if path is None:
            path = self._read(document, at)
        path.check_dates(at)
        public_key = path.leaf.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise ChainInvalid("Nitro document is signed with another kind of key than AWS uses")
        return path, public_key

    def remember(self, document: Document, path: CertificatePath) -> None:
        """Spare the next document under this chain its cost. `document`: its signature is right: certificates are no
        secret, and with what anybody may add to a bundle a stranger could fill the memory."""
        key = (document.certificate, *document.bundle)
        with self._lock:
            self._known[key] = path
            self._known.move_to_end(key)
            while len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)

    def _read(self, document: Document, at: datetime) -> CertificatePath:
        try:
            leaf, *bundle = map(load_certificate, (document.certificate, *document.bundle))
            _check_leaf(leaf)
        except X509_ERRORS as err:
            raise ChainInvalid("a certificate of the Nitro document does not parse") from err
        return self._paths.verify(leaf, bundle, at)


def _check_leaf(leaf: x509.Certificate) -> None:
    """It may sign documents and nothing else."""
    usage: x509.KeyUsage | None = None
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ChainInvalid("Nitro document is signed with the key of a CA")
        if isinstance(value, x509.KeyUsage):
            usage = value
    if usage is None or not usage.digital_signature or usage.key_cert_sign:
        raise ChainInvalid("the certificate of the Nitro document may not sign documents")
