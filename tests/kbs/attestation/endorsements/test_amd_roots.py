"""The pinned roots are AMD's, and anchors in their place must be a chain."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.attestation.endorsements.amd import AmdProduct, VekKind
from kbs.attestation.endorsements.amd_roots import pinned_roots, roots_from_anchors
from kbs.client.attesters.snp import SoftwareSnp
from kbs.client.attesters.test_root import TestRoot
from kbs.errors import ConfigInvalid

# Typed in here a second time; every other root: test_pinned.py.
CERTIFICATES = {
    "Milan": ("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
              "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
              "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5"),
    "Genoa": ("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
              "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
              "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372"),
    "Turin": ("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
              "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
              "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c"),
}  # fmt: skip


def digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize("product", CERTIFICATES)
def test_pinned_certificates(product: str) -> None:
    roots = pinned_roots()[AmdProduct(product)]
    assert roots.asvk is not None
    assert tuple(map(digest, (roots.ark, roots.ask, roots.asvk))) == CERTIFICATES[product]
    assert roots.issuer_of(VekKind.VCEK) is roots.ask
    assert roots.issuer_of(VekKind.VLEK) is roots.asvk


def wrong_anchors() -> dict[str, dict[str, Any]]:
    good, other = SoftwareSnp().anchors, SoftwareSnp(TestRoot(label="other")).anchors
    genoa = SoftwareSnp(product="Genoa").anchors
    vek = base64.b64encode(SoftwareSnp().certificate()).decode()
    return {
        "empty": {},
        "no ask": {"ark": good["ark"]},
        "no ark": {"ask": good["ask"]},
        "unknown member": {**good, "root": good["ark"]},
        "not text": {**good, "ask": 1},
        "not base64": {**good, "ask": "*"},
        "not a certificate": {**good, "ask": "AAAA"},
        "another root's ask": {**good, "ask": other["ask"]},
        "another root's asvk": {**good, "asvk": other["asvk"]},
        "another product's ask": {**good, "ask": genoa["ask"]},
        "swapped": {**good, "ask": good["asvk"]},
        "ask as ark": {"ark": good["ask"], "ask": good["ask"]},
        "endorsement key as ask": {**good, "ask": vek},
    }


@pytest.mark.parametrize("anchors", wrong_anchors().values(), ids=wrong_anchors())
def test_wrong_anchors_are_refused(anchors: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        roots_from_anchors(anchors)


def test_anchors_name_their_product() -> None:
    assert list(roots_from_anchors(SoftwareSnp(product="Turin").anchors)) == [AmdProduct.TURIN]
