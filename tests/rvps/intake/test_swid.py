"""Signed SWID RIM: whose XML signature counts, over what, when; and that nothing else is read."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, SignatureMethod

from rvps.errors import SignatureRefused, StatementUnacceptable
from rvps.intake import INTAKES, signed_form
from rvps.intake.model import Verified
from rvps.intake.swid import SIGNED_SWID, UPSTREAM_NAMES
from rvps.publishers.model import NOBODY, Publisher, Publishers, Trust, gather
from tests.fakes.rim import ONES, TWOS, document, resource, signed
from tests.fakes.signing_chain import CHAIN, END, START, Chain, key

VECTORS = Path(__file__).parents[2] / "vectors/rvps"
EXPECTED = json.loads((VECTORS / "manifests.json").read_text())
REAL = base64.b64decode((VECTORS / "swid/test-rim.b64").read_bytes())
AT = datetime(2026, 6, 1, tzinfo=UTC)
REAL_AT = datetime(2025, 6, 1, tzinfo=UTC)
REAL_END = datetime(2025, 12, 4, 8, 2, 39, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DS = "{http://www.w3.org/2000/09/xmldsig#}"


def publishers(*roots: x509.Certificate, types: Sequence[str] = ("signed-swid",)) -> Publishers:
    return gather([Publisher("nvidia", frozenset(types), ("NVIDIA_Corporation/",), Trust(roots=roots))])


def _real_certificates() -> list[x509.Certificate]:
    found = etree.fromstring(REAL).iter(f"{DS}X509Certificate")
    return [x509.load_der_x509_certificate(base64.b64decode(each.text)) for each in found]


NVIDIA = publishers(_real_certificates()[3])
OURS = publishers(CHAIN.root_certificate)
SIGNED = signed(document())


def verify(payload: bytes, who: Publishers = OURS, at: datetime = AT) -> Verified:
    return SIGNED_SWID.verify(payload, who, at)


# --- NVIDIA's --------------------------------------------------------------------------------------------------------


def test_the_real_document_verifies() -> None:
    certificates = _real_certificates()
    wanted = EXPECTED["swid-xmldsig"]["certificates"]
    assert [each.fingerprint(SHA256()).hex() for each in certificates] == [
        each["sha256_fingerprint"] for each in wanted
    ]
    found = verify(REAL, NVIDIA, REAL_AT)
    digest = base64.b64encode(hashlib.sha384(found.content).digest()).decode()
    assert digest == EXPECTED["swid-xmldsig"]["digest_value_b64"]
    assert (found.publisher.name, found.kind, found.expires) == ("nvidia", "signed-swid", REAL_END)
    assert found.signer == "CN=HCC RIM L4 Signer,O=NVIDIA Corporation,L=Santa Clara,ST=CA,C=US"


def test_what_the_real_document_says() -> None:
    content = SIGNED_SWID.extract(verify(REAL, NVIDIA, REAL_AT), REAL_AT)
    assert (content.series, content.serial) == ("NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C", 1)
    assert len(content.values) == 9
    assert content.valid_until == REAL_END
    upstream = UPSTREAM_NAMES.extract(verify(REAL, NVIDIA, REAL_AT), REAL_AT)
    assert upstream.values == EXPECTED["swid-nvidia-gh100-vbios"]["values"]


@pytest.mark.parametrize(
    ("at", "is_valid"),
    [
        (datetime(2023, 12, 5, 8, 2, 38, tzinfo=UTC), False),
        (datetime(2023, 12, 5, 8, 2, 39, tzinfo=UTC), True),
        (REAL_END, True),
        (REAL_END + SECOND, False),
        (AT, False),
    ],
    ids=["a second early", "first second", "last second", "a second late", "2026"],
)
def test_the_real_leaf_expires(at: datetime, is_valid: bool) -> None:
    if is_valid:
        assert verify(REAL, NVIDIA, at).expires == REAL_END
        return
    with pytest.raises(SignatureRefused, match="not valid yet, or has expired"):
        verify(REAL, NVIDIA, at)


def test_the_documents_own_root_is_worth_nothing() -> None:
    for who in (NOBODY, OURS):
        with pytest.raises(SignatureRefused, match="does not lead to a root of any publisher"):
            verify(REAL, who, REAL_AT)


def test_an_intermediate_may_be_the_root() -> None:
    assert verify(REAL, publishers(_real_certificates()[2]), REAL_AT).expires == REAL_END


@pytest.mark.filterwarnings("ignore")  # of certificates with a changed octet
@given(st.integers(0, len(REAL) - 1), st.integers(1, 255))
@example(REAL.index(b"758af960"), 1)
@example(REAL.index(b'active="True"') + 8, 32)
@example(REAL.index(b"<SoftwareIdentity") + 1, 32)
def test_what_is_signed_cannot_change(position: int, change: int) -> None:
    """Some octets are not signed: base64 may hold white space, the self-signed root is not looked at."""
    changed = bytearray(REAL)
    changed[position] ^= change
    try:
        found = verify(bytes(changed), NVIDIA, REAL_AT)
    except SignatureRefused:
        return
    assert found.content == verify(REAL, NVIDIA, REAL_AT).content


# --- ours ------------------------------------------------------------------------------------------------------------


def test_values_of_a_signed_document() -> None:
    found = SIGNED_SWID.extract(verify(signed(document([resource(3, ONES, TWOS)], tag_version="4"))), AT)
    assert found.values == {"NVIDIA_Corporation/GH100/vbios/96.00.74.00.1C/measurement_3": [ONES, TWOS]}
    assert (found.serial, found.valid_until) == (5, END)


@pytest.mark.parametrize(
    "canonical",
    [
        CanonicalizationMethod.CANONICAL_XML_1_0,
        CanonicalizationMethod.CANONICAL_XML_1_1,
        CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    ],
    ids=lambda method: method.name,
)
def test_canonical_forms(canonical: CanonicalizationMethod) -> None:
    assert verify(signed(document(), canonical=canonical)).signer == "CN=Test RIM Signer"


@pytest.mark.parametrize(
    "canonical",
    [method for method in CanonicalizationMethod if method.name.endswith("COMMENTS")],
    ids=lambda method: method.name,
)
def test_canonical_forms_with_comments_are_refused(canonical: CanonicalizationMethod) -> None:
    with pytest.raises(SignatureRefused, match=r"transforms|with comments"):
        verify(signed(document(), canonical=canonical))


def test_a_publisher_who_may_not_send_this() -> None:
    with pytest.raises(SignatureRefused, match="'nvidia' may not send messages of type signed-swid"):
        verify(SIGNED, publishers(CHAIN.root_certificate, types=("dsse",)))


def test_comments_are_neither_signed_nor_read() -> None:
    commented = SIGNED.replace(b"<ns0:Payload>", b"<ns0:Payload><!-- approved by nobody -->")
    assert verify(commented).content == verify(SIGNED).content


def test_registered() -> None:
    assert INTAKES["signed-swid"] is SIGNED_SWID
    assert signed_form("swid", SIGNED) is UPSTREAM_NAMES
    assert signed_form("swid", document()) is None


# --- attacks ---------------------------------------------------------------------------------------------------------

EVIL = document([resource(1, TWOS)])


def _changed(change: Callable[[Any, Any], None], payload: bytes = SIGNED) -> bytes:
    """The document after `change(root, signature)`."""
    root = etree.fromstring(payload)
    change(root, root.find(f"{DS}Signature"))
    return bytes(etree.tostring(root))


def _wrap_in_object(root: Any, signature: Any) -> None:
    """The signed document moves into the signature, and another one takes its place."""
    original = etree.fromstring(etree.tostring(root))
    original.remove(original.find(f"{DS}Signature"))
    for child in list(root):
        if child is not signature:
            root.remove(child)
    for child in etree.fromstring(EVIL):
        root.insert(0, child)
    etree.SubElement(signature, f"{DS}Object").append(original)


def _wrap_under_new_root(root: Any, _signature: Any) -> None:
    inner = etree.fromstring(etree.tostring(root))
    for child in list(root):
        root.remove(child)
    for child in etree.fromstring(EVIL):
        root.append(child)
    root.append(inner)


def _reference_a_part(root: Any, signature: Any) -> None:
    root[1].set("Id", "part")
    signature.find(f".//{DS}Reference").set("URI", "#part")


def _second_signature(root: Any, signature: Any) -> None:
    root.append(etree.fromstring(etree.tostring(signature)))


def _second_reference(_root: Any, signature: Any) -> None:
    info = signature.find(f"{DS}SignedInfo")
    info.append(etree.fromstring(etree.tostring(info.find(f"{DS}Reference"))))


def _move_down(root: Any, signature: Any) -> None:
    root[1].append(signature)


def _xpath_transform(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}Transform").set("Algorithm", "http://www.w3.org/TR/1999/REC-xpath-19991116")


def _add_transform(_root: Any, signature: Any) -> None:
    etree.SubElement(
        signature.find(f".//{DS}Transforms"), f"{DS}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"
    )


def _no_transforms(_root: Any, signature: Any) -> None:
    found = signature.find(f".//{DS}Transforms")
    found.getparent().remove(found)


def _external_reference(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}Reference").set("URI", "file:///etc/passwd")


def _no_key_info(_root: Any, signature: Any) -> None:
    signature.remove(signature.find(f"{DS}KeyInfo"))


def _no_signature_value(_root: Any, signature: Any) -> None:
    signature.find(f"{DS}SignatureValue").text = None


def _hmac(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}SignatureMethod").set("Algorithm", SignatureMethod.HMAC_SHA256.value)


def _rsa(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}SignatureMethod").set("Algorithm", SignatureMethod.RSA_SHA256.value)


def _unknown_method(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}SignatureMethod").set("Algorithm", "urn:x")


def _weak_digest(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}DigestMethod").set("Algorithm", "http://www.w3.org/2000/09/xmldsig#sha1")


def _no_base64(_root: Any, signature: Any) -> None:
    signature.find(f".//{DS}X509Certificate").text = "*"


def _evil_values(root: Any, _signature: Any) -> None:
    for each in root.iter("{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}Resource"):
        each.set("{http://www.w3.org/2001/04/xmlenc#sha384}Hash0", TWOS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_evil_values, "does not verify"),
        (_wrap_in_object, "object of its own|does not verify"),
        (_wrap_under_new_root, "directly under the root"),
        (_reference_a_part, "not over the whole document"),
        (_second_signature, "not exactly one signature"),
        (_second_reference, "not over the whole document"),
        (_move_down, "directly under the root"),
        (_xpath_transform, "transforms"),
        (_add_transform, "transforms"),
        (_no_transforms, "transforms"),
        (_external_reference, "not over the whole document"),
        (_no_key_info, "1 to 6 certificates"),
        (_no_signature_value, "does not verify"),
        (_hmac, "does not verify"),
        (_rsa, "does not verify"),
        (_unknown_method, "does not verify"),
        (_weak_digest, "does not verify"),
        (_no_base64, "not base64"),
    ],
    ids=lambda each: each.__name__.strip("_") if callable(each) else "",
)
def test_attacks(change: Callable[[Any, Any], None], words: str) -> None:
    with pytest.raises(SignatureRefused, match=words):
        verify(_changed(change))


def test_a_key_in_the_document_does_not_replace_that_of_the_certificate() -> None:
    """Signed by a stranger who names his key, with the certificates of somebody known beside it."""
    stranger = Chain(leaf=replace(CHAIN.leaf, key=key(77)))
    forged = etree.fromstring(signed(EVIL, stranger, always_add_key_value=True))
    holders = forged.findall(f".//{DS}X509Certificate")
    for holder, certificate in zip(holders, CHAIN.der, strict=True):
        holder.text = base64.b64encode(certificate).decode()
    with pytest.raises(SignatureRefused, match="does not verify"):
        verify(bytes(etree.tostring(forged)))


def test_a_key_in_the_document_beside_its_certificate_is_not_looked_at() -> None:
    assert verify(signed(document(), always_add_key_value=True)).content == verify(SIGNED).content


def test_certificates_in_another_order_do_not_lead_to_a_key() -> None:
    """The first one signs: a CA's certificate in its place is not for signatures."""
    root = etree.fromstring(SIGNED)
    holders = root.findall(f".//{DS}X509Certificate")
    holders[0].text, holders[1].text = holders[1].text, holders[0].text
    with pytest.raises(SignatureRefused, match="not for signatures"):
        verify(bytes(etree.tostring(root)))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (document(), "not exactly one signature"),
        (b"", "not well-formed"),
        (b"<x/>", "not exactly one signature"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + SIGNED, "document type"),
        (b" " * (1 << 20) + SIGNED, "more than 1048576"),
    ],
    ids=["unsigned", "nothing", "another document", "with a document type", "too large"],
)
def test_what_is_no_signed_document(payload: bytes, words: str) -> None:
    with pytest.raises(SignatureRefused, match=words):
        verify(payload)


@pytest.mark.parametrize(
    ("chain", "at", "words"),
    [
        (CHAIN, START - SECOND, "not valid yet"),
        (CHAIN, END + SECOND, "has expired"),
        (Chain(root=replace(CHAIN.root, key=key(99))), AT, "does not lead"),
        (CHAIN.with_leaf(signs_documents=False, signs_certificates=True), AT, "not for signatures"),
        (CHAIN.with_ca(is_ca=False), AT, "does not lead"),
    ],
    ids=["early", "late", "another root of that name", "not for signing", "issued by a leaf"],
)
def test_certificates_that_are_refused(chain: Chain, at: datetime, words: str) -> None:
    with pytest.raises(SignatureRefused, match=words):
        verify(signed(document(), chain), at=at)


@pytest.mark.parametrize(
    ("unsigned", "words"),
    [
        (document([]), "no reference values"),
        (document([resource(1, ONES), resource(1, TWOS)]), "comes twice"),
        (document(product=""), "is missing"),
        (document(tag_version="x"), "tagVersion"),
        (b"<x/>", "no SoftwareIdentity"),
    ],
    ids=["nothing stated", "an index twice", "no product", "no revision", "another document"],
)
def test_signed_nonsense_is_refused(unsigned: bytes, words: str) -> None:
    found = verify(signed(unsigned))
    with pytest.raises(StatementUnacceptable, match=words):
        SIGNED_SWID.extract(found, AT)


def test_values_do_not_outlive_the_certificate() -> None:
    with pytest.raises(StatementUnacceptable, match="has expired"):
        SIGNED_SWID.extract(verify(SIGNED), END)
