"""Signed SWID RIM: an enveloped XML signature by a certificate under a publisher's root.

signxml verifies; decided here is which signatures it gets to see. It supports all of XML Signature, where what is
signed can be a part of the document that nobody reads, or another one. Here exactly one signature stands directly under
the root element, it has one reference to the whole document, and nothing but what signxml says was signed is read.

Source: XML Signature Syntax and Processing 1.1; rvps 12.6.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import chain
from rvps.intake.model import Artifact, Content, Verified
from rvps.manifests import rim
from rvps.publishers.model import Publishers

_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_CANONICAL: Final = frozenset(
    method.value
    for method in (
        CanonicalizationMethod.CANONICAL_XML_1_0,
        CanonicalizationMethod.CANONICAL_XML_1_1,
        CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
)
"""Without comments: whoever can change a comment must not change what is signed, and the other way round."""
_METHODS: Final = frozenset(
    {
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
    }
)
_DIGESTS: Final = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_LIBRARY_ERRORS: Final = (
    SignXMLException,
    InvalidSignature,
    UnsupportedAlgorithm,
    etree.LxmlError,
    ValueError,  # base64 included
    TypeError,  # an element without text
)


@dataclass(frozen=True, slots=True)
class SignedSwid:
    """`rvps.intake.model.Intake` of one message type.

    kind: the message type. names: what the values are called; ours for `signed-swid`, upstream's for `swid`.
    """

    kind: str
    names: Callable[[rim.Rim], Mapping[str, Any]]

    def verify(self, payload: bytes, publishers: Publishers, at: datetime) -> Verified:
        """Check certificate, signature and publisher. Roots are those of the publishers, never the document's.

        Raises:
            SignatureRefused: no document with one enveloped signature over all of it, nobody's signature, or a
                certificate that is not valid at `at`.
        """
        try:
            root = rim.parse(payload)
        except StatementUnacceptable as err:
            raise SignatureRefused(str(err)) from err
        signer = chain.find_signer(chain.load(_certificates(_signature(root))), publishers, self.kind, at)
        configuration = SignatureConfiguration(
            location="./",
            expect_references=1,
            signature_methods=_METHODS,
            digest_algorithms=_DIGESTS,
            ignore_ambiguous_key_info=True,  # the key is that of the certificate above, whatever else is named
            verification_time=at,
        )
        try:
            result = XMLVerifier().verify(
                payload, x509_cert=signer.certificate, parser=rim.parser(), expect_config=configuration
            )
        except _LIBRARY_ERRORS as err:
            raise SignatureRefused("signed SWID: the XML signature does not verify") from err
        if isinstance(result, list):
            raise SignatureRefused("signed SWID: not exactly one signed part")
        return Verified(
            publisher=signer.publisher,
            signer=signer.identity,
            kind=self.kind,
            content=result.signed_data,
            digest=hashlib.sha256(result.signed_data).hexdigest(),
            signed_at=None,
            expires=signer.expires,
        )

    def extract(self, verified: Verified, at: datetime) -> Content:
        """Read the document: values by name, its tagVersion as serial. Each version of a product is a series of its
        own, as several are in the field at once. The values live as long as the signing certificates.

        Raises:
            StatementUnacceptable: not a SWID RIM, no values in it, or what `rvps.manifests.rim` refuses.
        """
        document = rim.read(rim.parse(verified.content))
        values = self.names(document)
        if not values:
            raise StatementUnacceptable("SWID: no reference values in it")
        if verified.expires is not None and verified.expires <= at:
            raise StatementUnacceptable("SWID: its signing certificate has expired")
        series = rim.own_prefix(document)
        return Content(
            series=series,
            serial=rim.revision(document),
            tee=None,
            artifacts=(Artifact(series, {"sha256": verified.digest}),),
            values=values,
            known_bad={},
            together=False,
            valid_from=None,
            valid_until=verified.expires,
        )


def is_signed(payload: bytes) -> bool:
    """Whether an untrusted document holds an XML signature anywhere.

    Raises:
        StatementUnacceptable: not XML that is read here.
    """
    return next(rim.parse(payload).iter(f"{_DS}Signature"), None) is not None


def _signature(root: Any) -> Any:
    """The one signature, of the one form that is taken.

    Raises:
        SignatureRefused: any other.
    """
    signatures = list(root.iter(f"{_DS}Signature"))
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise SignatureRefused("signed SWID: not exactly one signature, directly under the root element")
    signature = signatures[0]
    references = list(signature.iter(f"{_DS}Reference"))
    if len(references) != 1 or references[0].get("URI") != "":
        raise SignatureRefused("signed SWID: the signature is not over the whole document and nothing else")
    transforms = [each.get("Algorithm") for each in references[0].iter(f"{_DS}Transform")]
    if transforms[:1] != [_ENVELOPED] or len(transforms) > 2 or not _CANONICAL.issuperset(transforms[1:]):
        raise SignatureRefused("signed SWID: transforms other than enveloped-signature and one canonical form")
    canonical = [each.get("Algorithm") for each in signature.iter(f"{_DS}CanonicalizationMethod")]
    if len(canonical) != 1 or canonical[0] not in _CANONICAL:
        raise SignatureRefused("signed SWID: the signature has another canonical form, or one with comments")
    if next(signature.iter(f"{_DS}Object"), None) is not None:
        raise SignatureRefused("signed SWID: the signature holds an object of its own")
    return signature


def _certificates(signature: Any) -> list[bytes]:
    try:
        return [
            base64.b64decode("".join((each.text or "").split()), validate=True)
            for each in signature.iter(f"{_DS}X509Certificate")
        ]
    except (binascii.Error, ValueError) as err:
        raise SignatureRefused("signed SWID: a certificate is not base64") from err


SIGNED_SWID: Final = SignedSwid("signed-swid", rim.own_values)
UPSTREAM_NAMES: Final = SignedSwid("swid", rim.upstream_values)
