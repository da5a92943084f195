"""A software publisher of SWID RIMs: documents as NVIDIA writes them, and enveloped XML signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lxml import etree
from signxml.algorithms import (
    CanonicalizationMethod,
    DigestAlgorithm,
    SignatureConstructionMethod,
    SignatureMethod,
)
from signxml.signer import XMLSigner

from tests.fakes.signing_chain import CHAIN, Chain

ZEROS = "0" * 96
ONES = "1" * 96
TWOS = "2" * 96

_MODEL = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_HEAD = """<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" \
xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" \
name="GH100" tagId="t1" version="1.0" tagVersion="{tag_version}">
<ns0:Meta xmlns:ns1="{model}" \
colloquialVersion="{version}" edition="{edition}" product="{product}" ns1:PlatformManufacturerStr="{manufacturer}"/>
<ns0:Payload>"""


def resource(index: int | str, *hashes: str, active: str = "True", alternatives: int | None = None) -> str:
    texts = "".join(f' ns2:Hash{number}="{value}"' for number, value in enumerate(hashes))
    count = len(hashes) if alternatives is None else alternatives
    return (
        f'<ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{count}"{texts} size="48"/>'
    )


def document(
    resources: Sequence[str] = (resource(1, ONES),),
    *,
    version: str = "96.00.74.00.1C",
    edition: str = "GPU",
    product: str = "GH100",
    manufacturer: str = "NVIDIA Corporation",
    tag_version: str = "0",
) -> bytes:
    head = _HEAD.format(
        model=_MODEL,
        version=version,
        edition=edition,
        product=product,
        manufacturer=manufacturer,
        tag_version=tag_version,
    )
    return (head + "\n".join(resources) + "</ns0:Payload>\n</SoftwareIdentity>").encode()


def signed(
    unsigned: bytes,
    chain: Chain = CHAIN,
    *,
    method: SignatureMethod = SignatureMethod.ECDSA_SHA384,
    canonical: CanonicalizationMethod = CanonicalizationMethod.CANONICAL_XML_1_1,
    signer: type[XMLSigner] = XMLSigner,
    **options: Any,
) -> bytes:
    """The document with its signature as the last element."""
    xml_signer = signer(
        method=SignatureConstructionMethod.enveloped,
        signature_algorithm=method,
        digest_algorithm=DigestAlgorithm.SHA384,
        c14n_algorithm=canonical,
    )
    root = etree.fromstring(unsigned)
    key = chain.leaf.key
    assert not isinstance(key, Ed25519PrivateKey), "XML signatures have no such algorithm"
    found = xml_signer.sign(root, key=key, cert=chain.certificates, **options)
    return bytes(etree.tostring(found))
